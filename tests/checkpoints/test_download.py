"""Downloads from a server on this machine, which fails as servers do."""

import hashlib
import random
from urllib.parse import urlsplit

import pytest
import requests
from weight_server import QUOTA_PAGE, Behaviour, nobody_listens, serving

from cavis.checkpoints import download
from cavis.checkpoints.download import (
    DownloadError,
    Drive,
    Fingerprint,
    Hub,
    Url,
    compare,
    fetch,
    fingerprint,
    is_web_page,
    read_record,
    remember,
)

BODY = random.Random(3).randbytes(1_500_000)
CHUNK = 2**19
"""Bytes are written in portions of this size."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "SILENCE", 5.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def server():
    behaviour = Behaviour(BODY)
    with serving(behaviour) as address:
        yield behaviour, address


@pytest.fixture
def drive(server, monkeypatch):
    """All that would go to Google goes to the server here."""
    behaviour, address = server
    send = requests.adapters.HTTPAdapter.send

    def redirected(self, request, **options):
        parts = urlsplit(request.url)
        assert parts.hostname in ("drive.google.com", "drive.usercontent.google.com")
        request.url = f"{address}{parts.path}?{parts.query}"
        return send(self, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
    return behaviour


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "home")


def test_a_file_comes_whole_and_progress_ends_at_its_size(server, tmp_path):
    _, address = server
    seen = []
    fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "w.pkl").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)
    assert names(tmp_path) == ["w.pkl"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    behaviour, address = server
    (tmp_path / "w.pkl").write_bytes(b"there already")
    fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert behaviour.asked == []
    assert (tmp_path / "w.pkl").read_bytes() == b"there already"


def test_a_download_that_broke_off_goes_on_where_it_was(server, tmp_path):
    behaviour, address = server
    behaviour.cut = 1_000_000
    with pytest.raises(DownloadError) as caught:
        fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert f"the first {CHUNK:,} bytes are kept" in one_sentence(caught)
    assert not (tmp_path / "w.pkl").exists()
    behaviour.cut = None
    behaviour.asked.clear()
    fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == BODY
    assert behaviour.asked[-1][1] == f"bytes={CHUNK}-"
    assert names(tmp_path) == ["w.pkl"]


@pytest.mark.parametrize("changed", [False, True], ids=["no ranges", "another file now"])
def test_where_it_cannot_go_on_it_begins_again(server, tmp_path, changed):
    behaviour, address = server
    behaviour.cut = 1_000_000
    with pytest.raises(DownloadError):
        fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    behaviour.cut = None
    behaviour.ranges = changed
    if changed:
        behaviour.body = BODY[:400_000]  # shorter than what is there
    fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == behaviour.body
    assert names(tmp_path) == ["w.pkl"]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_server_that_refuses_is_quoted(server, tmp_path, status):
    behaviour, address = server
    behaviour.status = status
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert names(tmp_path) == []


def test_without_a_server_the_address_is_named(tmp_path):
    address = f"{nobody_listens()}/weights.pkl"
    with pytest.raises(DownloadError) as caught:
        fetch(Url(address), tmp_path / "w.pkl")
    assert one_sentence(caught) == f"could not fetch {address}: the server cannot be reached"
    assert names(tmp_path) == []


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_a_web_page_is_not_taken_for_the_file(server, tmp_path, content_type):
    behaviour, address = server
    behaviour.body, behaviour.content_type = QUOTA_PAGE, content_type
    with pytest.raises(DownloadError, match="a web page or a message came instead"):
        fetch(Url(f"{address}/weights.pkl"), tmp_path / "w.pkl")
    assert names(tmp_path) == []


def test_a_small_file_of_google_drive_comes_at_once(drive, tmp_path):
    fetch(Drive("1abcDEF-_"), tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert drive.asked[0][0].endswith("id=1abcDEF-_")


def test_googles_question_about_large_files_is_answered(drive, tmp_path):
    drive.pages["/uc"] = (
        b"<!DOCTYPE html><html><body><p>Google Drive can't scan this file for viruses.</p>"
        b'<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
        b'<input type="hidden" name="id" value="1abc"><input type="hidden" name="confirm" value="t"></form></html>'
    )
    fetch(Drive("1abc"), tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert drive.asked[-1][0].startswith("/download?")
    assert "confirm=t" in drive.asked[-1][0]


def test_a_file_of_google_drive_goes_on_where_it_broke_off(drive, tmp_path):
    drive.cut = 600_000
    with pytest.raises(DownloadError, match=f"{CHUNK:,} bytes are kept"):
        fetch(Drive("1abc"), tmp_path / "w.pth")
    drive.cut = None
    fetch(Drive("1abc"), tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert drive.asked[-1][1] == f"bytes={CHUNK}-"


def test_googles_limit_a_day_is_explained(drive, tmp_path):
    drive.pages["/uc"] = QUOTA_PAGE
    with pytest.raises(DownloadError) as caught:
        fetch(Drive("1abc"), tmp_path / "w.pth")
    assert "limit of downloads" in one_sentence(caught)
    assert "https://drive.google.com/uc?export=download&id=1abc" in one_sentence(caught)
    assert names(tmp_path) == []


def online(monkeypatch, address):
    """The hub is the test's own server, also where the environment forbids the real one."""
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_a_file_of_the_hub_comes_whole_and_alone(server, tmp_path, monkeypatch):
    behaviour, address = server
    online(monkeypatch, address)
    seen = []
    fetch(
        Hub("facebook/some-model", "model.safetensors"),
        tmp_path / "m.safetensors",
        lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "m.safetensors").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert names(tmp_path) == ["m.safetensors"]
    assert ("/facebook/some-model/resolve/main/model.safetensors", None) in behaviour.asked


MODEL = Hub("facebook/some-model", "model.safetensors")


def test_a_file_of_the_hub_goes_on_where_it_broke_off(server, tmp_path, monkeypatch):
    behaviour, address = server
    online(monkeypatch, address)
    behaviour.cut = 1_000_000
    with pytest.raises(DownloadError) as caught:
        fetch(MODEL, tmp_path / "m.safetensors")
    assert f"the first {CHUNK:,} bytes are kept" in one_sentence(caught)
    assert not (tmp_path / "m.safetensors").exists()
    behaviour.cut, behaviour.sent, seen = None, 0, []
    fetch(MODEL, tmp_path / "m.safetensors", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "m.safetensors").read_bytes() == BODY
    assert behaviour.asked[-1][1] == f"bytes={CHUNK}-"
    assert behaviour.sent == len(BODY) - CHUNK
    assert seen[0][0] > CHUNK
    assert seen[-1] == (len(BODY), len(BODY))
    assert names(tmp_path) == ["m.safetensors"]


def test_a_short_interruption_of_the_hub_is_bridged(server, tmp_path, monkeypatch):
    behaviour, address = server
    online(monkeypatch, address)
    monkeypatch.setattr(download, "RETRIES", 2)
    behaviour.cut = 600_000
    fetch(MODEL, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == BODY
    assert [part for _, part in behaviour.asked] == [None, None, f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-"]


@pytest.mark.parametrize("changed", [False, True], ids=["no ranges", "another version now"])
def test_where_the_hub_cannot_go_on_it_begins_again(server, tmp_path, monkeypatch, changed):
    behaviour, address = server
    online(monkeypatch, address)
    behaviour.cut = 1_000_000
    with pytest.raises(DownloadError):
        fetch(MODEL, tmp_path / "m.safetensors")
    behaviour.cut = None
    behaviour.ranges = changed
    if changed:
        behaviour.body = BODY[::-1]
    fetch(MODEL, tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == behaviour.body
    assert names(tmp_path) == ["m.safetensors"]


def test_a_file_that_is_not_the_one_the_hub_names_is_removed(server, tmp_path, monkeypatch):
    """Its hash is another; large files lie elsewhere, where they may be damaged."""
    behaviour, address = server
    online(monkeypatch, address)
    with serving(Behaviour(BODY[:-1] + b"!")) as elsewhere:
        behaviour.elsewhere = f"{elsewhere}/blob"
        with pytest.raises(DownloadError) as caught:
            fetch(MODEL, tmp_path / "m.safetensors")
    assert "is not the file that the hub names" in one_sentence(caught)
    assert names(tmp_path) == []


def test_a_token_goes_to_the_hub_and_not_to_where_its_files_lie(server, tmp_path, monkeypatch):
    behaviour, address = server
    online(monkeypatch, address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(MODEL, tmp_path / "a.safetensors")
    assert set(behaviour.tokens) == {"Bearer hf_secret"}
    storage = Behaviour(BODY)
    with serving(storage) as elsewhere:
        behaviour.elsewhere = f"{elsewhere.replace('127.0.0.1', 'localhost')}/blob"
        fetch(MODEL, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == BODY
    assert storage.tokens == [None]


def test_a_file_that_the_hub_does_not_have_is_said_to_be_missing(server, tmp_path, monkeypatch):
    behaviour, address = server
    behaviour.status = 404
    online(monkeypatch, address)
    with pytest.raises(DownloadError) as caught:
        fetch(Hub("facebook/no-model", "model.safetensors"), tmp_path / "m.safetensors")
    assert "404" in one_sentence(caught)
    assert "facebook/no-model" in one_sentence(caught)
    assert names(tmp_path) == []


def test_without_the_hub_its_address_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", nobody_listens())
    with pytest.raises(DownloadError) as caught:
        fetch(Hub("facebook/some-model", "model.safetensors"), tmp_path / "m.safetensors")
    assert one_sentence(caught).endswith("model.safetensors: the server cannot be reached")
    assert names(tmp_path) == []


def test_a_first_download_is_remembered_and_another_file_is_noticed(tmp_path):
    path, record = tmp_path / "w.pth", tmp_path / "w.json"
    path.write_bytes(BODY)
    first = fingerprint(path)
    assert (first.size, first.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    compare(first, record)  # nothing is known yet
    remember(first, record)
    compare(first, record)
    assert read_record(record) == first
    for other in (BODY[:-1], BODY[:-1] + b"!"):
        path.write_bytes(other)
        with pytest.raises(DownloadError) as caught:
            compare(fingerprint(path), record)
        assert str(record) in one_sentence(caught)
        assert f"{len(other):,} bytes" in one_sentence(caught)
    remember(fingerprint(path), record)
    assert read_record(record) == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 3}'])
def test_a_damaged_record_counts_as_none(tmp_path, text):
    record = tmp_path / "w.json"
    record.write_text(text)
    compare(Fingerprint(1, "a", "2026-01-01"), record)
    remember(Fingerprint(1, "a", "2026-01-01"), record)
    assert read_record(record) == Fingerprint(1, "a", "2026-01-01")


@pytest.mark.parametrize(
    ("head", "page"),
    [
        (QUOTA_PAGE, True),
        (b"\xef\xbb\xbf\r\n <HTML lang='en'>", True),
        (b"<!-- saved from url --><html>", True),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', True),
        (b'{\n "error": {\n  "code": 403,\n  "message": "The download quota is exceeded."', True),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"error":{"dtype":"F32"', False),
        (b'{"metadata": {"total_size": 3}}', False),
        (b"PK\x03\x04<html>", False),
        (b"\x80\x04\x95", False),
        (b"", False),
    ],
)
def test_web_pages_are_told_from_weights_by_how_they_begin(head, page):
    assert is_web_page(head) is page
