import csv
import json
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import cavis
from cavis.video import open_video


@pytest.fixture(scope="module")
def client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(address, download_files=str(tmp_path_factory.mktemp("downloads")), verbose=False)


def test_a_file_goes_in_and_the_tracks_come_out(client: Client):
    drawn = Path(cavis.__file__).parent / "assets" / "examples" / "crossing.mp4"  # lite sees nothing in plain squares
    video, results, tracks, summary = client.predict(
        video=handle_file(drawn), start=0.5, end=1.5, stride=2, min_score=0.0, api_name="/track"
    )
    assert len(open_video(video)) == summary["frames"] == 5
    assert len(json.loads(Path(results).read_text())) == len(summary["tracks"]) > 0
    rows = list(csv.DictReader(Path(tracks).read_text().splitlines()))
    seen = sum(track["visible_frames"] for track in summary["tracks"])
    assert len(rows) == seen
    assert summary["model"] == "lite"


def test_a_bad_file_is_refused_in_words_and_the_next_one_is_served(client: Client, bad_file: Path, clip: Path):
    with pytest.raises(AppError) as refusal:
        client.predict(video=handle_file(bad_file), api_name="/track")
    message = str(refusal.value)
    assert "accepted are" in message or "damaged or not complete" in message
    assert "Traceback" not in message
    answer = client.predict(video=handle_file(clip), end=0.2, api_name="/track")
    assert answer[3]["frames"] == 2


def test_no_file_at_all_is_refused_in_words(client: Client):
    with pytest.raises(AppError, match="Expected a video"):
        client.predict(video=None, api_name="/track")


def test_only_tracking_is_offered_to_programs(client: Client):
    offered = client.view_api(return_format="dict")["named_endpoints"]
    assert set(offered) == {"/track"}


@pytest.mark.parametrize("path", ["monitoring", "gradio_api/file=/etc/passwd", "gradio_api/file=app.py"])
def test_nothing_else_is_served(address: str, path: str):
    assert httpx.get(address + path, timeout=10).status_code in (401, 403, 404)
