import json
import os
import shutil
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from cavis.video import (
    Limits,
    VideoCancelledError,
    VideoError,
    VideoInfo,
    open_video,
    probe,
    sanitize,
    trim,
)

EVERY_KIND = {
    "h264": (80, 64),
    "one": (80, 64),
    "odd": (64, 48),
    "rotated 90": (64, 80),
    "rotated 180": (80, 64),
    "rotated 270": (64, 80),
    "mirrored": (64, 80),
    "variable": (80, 64),
    "variable mkv": (80, 64),
    "hevc 10 bit": (80, 64),
    "av1": (80, 64),
    "vp9 alpha": (80, 64),
    "prores alpha": (80, 64),
    "avi h264": (80, 64),
    "vp8": (80, 64),
}


@pytest.fixture
def out(tmp_path):
    """Where results go; a folder of its own, so that it shows what is left behind."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results" / "clean.mp4"


@pytest.fixture
def misbehave(monkeypatch, clip, tmp_path):
    """Let a child do something it should not; gives the path to ask for it by."""
    import sys

    monkeypatch.setattr(sys.modules["cavis.video.sanitize"], "_CHILD", "tests.video.rogue_child")

    def ask(deed: str) -> Path:
        return Path(shutil.copy(clip("one"), tmp_path / f"{deed}.mp4"))

    return ask


def left_in(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir()]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_file_becomes_a_plain_one_with_the_same_frames_at_the_same_times(kind, clip, out):
    info = sanitize(clip(kind), out)
    width, height = EVERY_KIND[kind]
    with open_video(out) as clean, open_video(clip(kind)) as original:
        assert (info.width, info.height, info.frames) == (clean.width, clean.height, len(clean))
        assert (clean.width, clean.height, len(clean)) == (width, height, len(original))
        assert (info.lost_frames, info.notes) == (0, ())
        np.testing.assert_allclose(clean.timestamps, original.timestamps, atol=1 / 90_000)
        for first, second in zip(clean, original, strict=True):
            visible = first[: original.height, : original.width]
            assert np.abs(visible.astype(int) - second).mean() < 6
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, len(container.streams)) == ("h264", "yuv420p", 1)
        assert next(container.decode(video=0)).rotation == 0
    assert left_in(out) == ["clean.mp4"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("odd", VideoInfo(63, 47, 12, 10.0, 1.2, "h264", "mp4")),
        ("rotated 90", VideoInfo(64, 80, 12, 10.0, 1.2, "h264", "mp4", rotation=270)),
        ("av1", VideoInfo(80, 64, 12, 10.0, 1.2, "av1", "mp4")),
        ("vp9 alpha", VideoInfo(80, 64, 12, 10.0, 1.2, "vp9", "matroska", has_alpha=True)),
        ("variable", VideoInfo(80, 64, 12, 2.75, 4.363636, "h264", "mp4")),
    ],
)
def test_probe_describes_the_video_as_it_is_shown(kind, expected, clip):
    assert probe(clip(kind)) == expected


@pytest.mark.parametrize("kind", ["front", "mkv", "avi"])
def test_a_truncated_file_is_processed_and_says_how_many_frames_were_lost(kind, cut, out):
    path = cut(kind)
    info = sanitize(path, out)
    assert 10 < info.frames < 60
    assert info.lost_frames == 60 - info.frames
    assert info.notes == (f"{info.lost_frames} of 60 frames could not be read and were left out.",)
    assert len(open_video(out)) == info.frames
    assert probe(path).lost_frames == info.lost_frames


def test_only_what_the_chosen_part_has_lost_is_reported(cut, out):
    path = cut("front")
    whole = probe(path)
    assert sanitize(path, out, end=1).lost_frames == 0
    beyond = (whole.frames + 5) / 10
    info = sanitize(path, out, start=1, end=beyond)
    assert info.lost_frames == whole.frames - 5 - info.frames > 0


def test_frames_in_a_hole_are_left_out_and_the_others_keep_their_times(holed, out):
    info = sanitize(holed, out)
    assert 0 < info.lost_frames < 30
    assert info.frames + info.lost_frames == 60
    clean = open_video(out)
    np.testing.assert_allclose(clean.timestamps * 10, np.round(clean.timestamps * 10), atol=1e-3)
    assert clean.timestamps[-1] == pytest.approx(5.9)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("long", {"start": 1.15, "stride": 3}),
        ("hevc open", {"start": 4.3, "end": 5.0}),
        ("variable mkv", {"start": 0.5, "end": 2.01}),
        ("avi h264", {"start": 0.45, "end": 0.9}),
    ],
)
def test_a_part_holds_the_frames_that_trimming_gives(kind, part, clip, out):
    with open_video(clip(kind)) as whole:
        expected = trim(whole, **part)
        info = sanitize(clip(kind), out, **part)
        with open_video(out) as clean:
            assert info.frames == len(clean) == len(expected)
            times = expected.timestamps - expected.timestamps[0]
            np.testing.assert_allclose(clean.timestamps, times, atol=1 / 90_000)
            for first, second in zip(clean, expected, strict=True):
                assert np.abs(first.astype(int) - second).mean() < 6


def test_frames_the_decoder_had_to_guess_at_are_kept_and_counted(clip, tmp_path, out):
    content = bytearray(clip("mkv").read_bytes())
    for place in np.random.default_rng(1).integers(len(content) // 3, len(content), 12):
        content[place] ^= 0xFF
    (tmp_path / "flipped.mkv").write_bytes(content)
    info = sanitize(tmp_path / "flipped.mkv", out)
    assert info.damaged_frames > 0
    assert f"{info.damaged_frames} of {info.frames} frames are damaged and may show errors." in info.notes


@pytest.mark.parametrize(("kind", "size"), [("full hd", (640, 360)), ("rotated 90", (80, 64)), ("odd", (48, 36))])
def test_large_frames_shrink_to_the_wanted_short_side(kind, size, clip, out):
    short = min(size) if kind != "rotated 90" else 200
    info = sanitize(clip(kind), out, max_short_side=short)
    assert (info.width, info.height) == (size if kind != "rotated 90" else (64, 80))
    assert open_video(out)[0].shape == (info.height, info.width, 3)


REFUSED = {
    "empty": "is empty; accepted are MP4/MOV, MKV/WebM and AVI files",
    "text": "is a text file, not a video; accepted are MP4/MOV, MKV/WebM and AVI files",
    "junk": "is an unknown kind of file, not a video; accepted are",
    "junk behind a header": "could not be read as MP4/MOV: it is damaged or not complete",
    "index lost": "could not be read as MP4/MOV: it is damaged or not complete",
    "picture": "is a PNG picture, not a video",
    "hls": "is a playlist, a list of other files or addresses, not a video",
    "concat": "is a playlist",
    "concat without a header": "is a playlist",
    "sdp": "is a playlist",
    "dash": "is a playlist",
    "sound": "contains only sound; expected a file with a video stream",
    "sound with a cover": "contains only sound",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_with_a_sentence_and_nothing_is_left(name, not_videos, out):
    with pytest.raises(VideoError, match=REFUSED[name]):
        sanitize(not_videos[name], out)
    assert left_in(out) == []


def test_after_every_refusal_the_next_request_is_served(not_videos, clip, out):
    with pytest.raises(VideoError):
        sanitize(not_videos["index lost"], out)
    assert sanitize(clip("one"), out).frames == 1


def test_a_refusal_keeps_the_result_that_was_there(not_videos, clip, out):
    sanitize(clip("one"), out)
    before = out.read_bytes()
    with pytest.raises(VideoError):
        sanitize(not_videos["index lost"], out)
    assert out.read_bytes() == before


def test_containers_outside_the_limits_are_refused(clip, out):
    with pytest.raises(VideoError, match="is a video in the GIF format; accepted are MP4/MOV, MKV/WebM and AVI files"):
        sanitize(clip("gif"), out)
    assert sanitize(clip("gif"), out, Limits(containers=("gif",))).frames == 12


def test_devices_and_folders_are_refused(tmp_path, out):
    for path in (Path(os.devnull), tmp_path):
        with pytest.raises(VideoError, match="is not a regular file"):
            sanitize(path, out)


def test_the_size_of_the_file_is_limited(clip, out):
    size = clip("front").stat().st_size
    with pytest.raises(VideoError, match=r"has 0\.0 MB; accepted are at most"):
        sanitize(clip("front"), out, Limits(bytes=size - 1))
    assert sanitize(clip("front"), out, Limits(bytes=size)).frames == 60


def test_decoded_frames_are_counted_whatever_the_file_says(clip, out):
    with pytest.raises(VideoError, match=r"more than 59 frames; accepted are at most 59 \(6 s of this video\)"):
        sanitize(clip("mkv"), out, Limits(frames=59))
    assert left_in(out) == []
    assert sanitize(clip("mkv"), out, Limits(frames=60)).frames == 60
    assert sanitize(clip("mkv"), out, Limits(frames=20), stride=3).frames == 20
    assert probe(clip("mkv"), Limits(frames=1)).frames == 60


def test_pixels_are_limited(clip, out):
    assert sanitize(clip("h264"), out, Limits(pixels=80 * 64)).frames == 12
    with pytest.raises(VideoError, match=r"frames of 80 x 64 pixels; accepted are at most 5,119 pixels a frame"):
        sanitize(clip("h264"), out, Limits(pixels=80 * 64 - 1))


def test_a_header_that_lies_about_the_size_does_not_help(clip, tmp_path, out):
    content = bytearray(clip("full hd").read_bytes())
    entry = content.index(b"avc1", content.index(b"stsd"))
    assert content[entry + 28 : entry + 32] == (1920).to_bytes(2, "big") + (1080).to_bytes(2, "big")
    content[entry + 28 : entry + 32] = (16).to_bytes(2, "big") * 2
    liar = tmp_path / "liar.mp4"
    liar.write_bytes(content)
    with pytest.raises(VideoError, match="1920 x 1080 pixels; accepted are at most 10,000"):
        sanitize(liar, out, Limits(pixels=10_000))


def test_memory_is_limited(clip, out):
    with pytest.raises(VideoError, match=r"needs more than the 250 MB of memory allowed"):
        sanitize(clip("full hd"), out, Limits(memory_bytes=250_000_000))
    assert left_in(out) == []


def test_time_is_limited(misbehave, out):
    start = time.monotonic()
    with pytest.raises(VideoError, match=r"longer than the 0.5 s allowed; choose a shorter part"):
        sanitize(misbehave("sleep"), out, Limits(seconds=0.5))
    assert time.monotonic() - start < 5
    assert left_in(out) == []


def test_computing_time_is_limited(misbehave, out):
    with pytest.raises(VideoError, match=r"more than the 1 s of computing time allowed"):
        sanitize(misbehave("spin"), out, Limits(cpu_seconds=1, seconds=30))
    assert left_in(out) == []


def test_what_is_written_is_limited(misbehave, out):
    with pytest.raises(VideoError):
        sanitize(misbehave("fill"), out, Limits(output_bytes=5_000_000, seconds=20))
    assert left_in(out) == []


@pytest.mark.parametrize("deed", ["crash", "babble"])
def test_a_child_that_fails_is_a_sentence(deed, misbehave, out):
    with pytest.raises(VideoError, match="made its decoder fail and cannot be read"):
        sanitize(misbehave(deed), out)
    assert left_in(out) == []


def test_the_child_learns_no_secrets(misbehave, out, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(VideoError) as caught:
        sanitize(misbehave("tell"), out)
    known = json.loads(str(caught.value))
    assert "HF_TOKEN" not in known
    assert "PATH" in known


def test_cancelling_ends_the_child_at_once(misbehave, out):
    path, cancel = misbehave("sleep"), threading.Event()
    note = path.with_suffix(".pid")

    def cancel_once_it_runs():
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        cancel.set()

    waiter = threading.Thread(target=cancel_once_it_runs)
    waiter.start()
    with pytest.raises(VideoCancelledError, match="stopped"):
        sanitize(path, out, cancel=cancel)
    waiter.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert left_in(out) == []


def test_what_is_cancelled_before_it_starts_does_not_start(clip, out):
    cancel = threading.Event()
    cancel.set()
    for work in (lambda: sanitize(clip("one"), out, cancel=cancel), lambda: probe(clip("one"), cancel=cancel)):
        with pytest.raises(VideoCancelledError):
            work()
    assert left_in(out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "start of 0 or more"),
        ({"start": 2, "end": 1}, "end after the start"),
        ({"stride": 0}, "stride of 1 or more"),
        ({"max_short_side": 1}, "short side of at least 2"),
        ({"start": 50}, "no readable frame between 50 s and its end; it is 1.2 s long"),
    ],
)
def test_impossible_wishes_are_refused(arguments, message, clip, out):
    with pytest.raises(VideoError, match=message):
        sanitize(clip("h264"), out, **arguments)
    assert left_in(out) == []


def test_requests_side_by_side_do_not_meet(clip, tmp_path):
    outs = [tmp_path / f"{index}.mp4" for index in range(3)]
    threads = [threading.Thread(target=sanitize, args=(clip("h264"), out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(open_video(out)) for out in outs] == [12, 12, 12]
