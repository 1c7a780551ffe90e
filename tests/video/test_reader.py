import importlib.util
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cavis.video import VideoError, open_video, reader, trim
from cavis.video.reader import DecordSource, PyavSource

QUICK_READER = DecordSource if importlib.util.find_spec("decord") else PyavSource
EVERY_KIND = [
    "h264",
    "one",
    "odd",
    "rotated 90",
    "rotated 180",
    "rotated 270",
    "mirrored",
    "variable",
    "variable mkv",
    "hevc",
    "hevc 10 bit",
    "av1",
    "vp9",
    "vp8",
    "avi",
    "avi h264",
    "gif",
    "fragments",
    "narrow",
    "prores alpha",
    "png alpha",
    "qtrle alpha",
    "vp9 alpha",
]


@pytest.fixture
def without_decord(monkeypatch):
    monkeypatch.setattr(reader, "_decord", lambda: None)


def close_to(frame, expected, tolerance=6.0):
    """Lossy coding moves pixels a little on average, and much only at edges."""
    assert frame.shape == expected.shape
    assert frame.dtype == np.uint8
    return np.abs(frame.astype(int) - expected).mean() < tolerance


def shown(recipe, draw, index):
    """What a person should see of frame ``index``."""
    frame = draw(index, recipe.height, recipe.width)
    if recipe.transparent:
        frame[:, recipe.width // 2 :] = 0
    frame = np.rot90(frame, recipe.rotation // 90)
    return frame[:, ::-1] if recipe.mirrored else frame


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_file_gives_its_frames_upright_and_in_order(kind, clip, recipes, draw):
    recipe = recipes[kind]
    with open_video(clip(kind)) as source:
        frames = list(source)
        assert len(frames) == len(source) == recipe.frames
        assert source.lost_frames == 0
        assert source.notes == ()
        for index, frame in enumerate(frames):
            assert frame.shape == (source.height, source.width, 3)
            assert close_to(frame, shown(recipe, draw, index), 25.0 if kind == "gif" else 6.0), index


@pytest.mark.parametrize("kind", [*EVERY_KIND, "long", "hevc open"])
def test_frames_in_any_order_equal_frames_in_order(kind, clip):
    with open_video(clip(kind)) as source:
        in_order = list(source)
        for index in np.random.default_rng(0).permutation(len(source))[:40]:
            np.testing.assert_array_equal(source[int(index)], in_order[index])


@pytest.mark.parametrize("kind", ["h264", "long", "hevc", "vp9", "odd", "variable", "mkv", "fragments"])
def test_both_readers_give_the_same_frames_at_the_same_times(kind, clip, monkeypatch):
    quick = open_video(clip(kind))
    assert type(quick) is QUICK_READER
    monkeypatch.setattr(reader, "_decord", lambda: None)
    other = open_video(clip(kind))
    assert type(other) is PyavSource
    np.testing.assert_array_equal(quick.timestamps, other.timestamps)
    for first, second in zip(quick, other, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["long", "hevc open", "variable", "mkv"])
def test_frames_in_any_order_equal_frames_in_order_without_decord(kind, clip, without_decord):
    with open_video(clip(kind)) as source:
        in_order = list(source)
        for index in np.random.default_rng(1).permutation(len(source))[:40]:
            np.testing.assert_array_equal(source[int(index)], in_order[index])


def test_a_width_that_decord_gets_wrong_is_read_right(clip, draw):
    with open_video(clip("narrow")) as source:
        assert source[3].shape == (64, 48, 3)
        assert close_to(source[3], draw(3, 64, 48))


@pytest.mark.parametrize("kind", ["variable", "variable mkv"])
def test_timestamps_of_a_variable_rate_are_kept(kind, clip, recipes):
    with open_video(clip(kind)) as source:
        np.testing.assert_allclose(source.timestamps, np.array(recipes[kind].times) / 1000, atol=1e-3)


@pytest.mark.parametrize("kind", ["h264", "fragments", "avi", "avi h264", "gif"])
def test_timestamps_start_at_zero_and_increase(kind, clip):
    with open_video(clip(kind)) as source:
        np.testing.assert_allclose(source.timestamps, np.arange(len(source)) / 10, atol=1e-6)


def test_reading_while_iterating_disturbs_neither(clip):
    for setting in (reader._decord, lambda: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "_decord", setting)
            with open_video(clip("long")) as source:
                expected = list(source)
                for index, frame in enumerate(source):
                    np.testing.assert_array_equal(frame, expected[index])
                    np.testing.assert_array_equal(source[99 - index], expected[99 - index])


def test_a_frame_outside_is_an_index_error(clip):
    with open_video(clip("one")) as source:
        for index in (-1, 1):
            with pytest.raises(IndexError, match="between 0 and 0"):
                source[index]


@pytest.mark.parametrize(("kind", "total"), [("front", 60), ("mkv", 60), ("avi", 60)])
def test_a_truncated_file_gives_its_readable_frames_and_says_how_many_were_lost(kind, total, cut, draw):
    with open_video(cut(kind)) as source:
        frames = list(source)
        assert 10 < len(frames) < total
        assert len(frames) == len(source)
        assert source.lost_frames == total - len(frames)
        assert source.notes == (f"{total - len(frames)} of {total} frames could not be read and were left out.",)
        for time, frame in zip(source.timestamps, frames, strict=True):
            assert close_to(frame, draw(round(time * 10)))
        np.testing.assert_array_equal(source[5], frames[5])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pictures_that_need_a_part_that_was_cut_off_are_passed_over(suffix, cut_out, draw):
    with open_video(cut_out(suffix)) as source:
        frames = list(source)
        assert len(frames) == len(source) == 80
        assert source.notes == ()
        for index in (7, 0, 79, 30):
            np.testing.assert_array_equal(source[index], frames[index])
            assert close_to(frames[index], draw(20 + index))


@pytest.mark.parametrize("setting", [reader._decord, lambda: None])
def test_a_hole_in_the_middle_is_reported_at_the_first_unreadable_frame(setting, holed, monkeypatch):
    monkeypatch.setattr(reader, "_decord", setting)
    with open_video(holed) as source, pytest.raises(VideoError, match=r"Frame \d+ of holed.mp4 cannot be read"):
        list(source)


@pytest.mark.parametrize("setting", [reader._decord, lambda: None])
def test_iterating_keeps_no_frames(setting, clip, monkeypatch):
    monkeypatch.setattr(reader, "_decord", setting)
    alive: set[int] = set()
    most = 0
    with open_video(clip("long")) as source:
        for index, frame in enumerate(source):
            alive.add(index)
            weakref.finalize(frame, alive.discard, index)
            most = max(most, len(alive))
    assert most <= 3


PEAK = """
import itertools, resource, sys
from cavis.video import open_video, reader
if sys.argv[2] == "pyav":
    reader._decord = lambda: None
with open_video(sys.argv[1]) as source:
    for frame in itertools.islice(source, int(sys.argv[3])):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("which", ["decord", "pyav"])
def test_memory_does_not_grow_with_the_number_of_frames_read(which, tmp_path):
    from cavis.video import VideoWriter

    path = tmp_path / "many.mp4"
    with VideoWriter(path, 240, 320, fps=30) as writer:
        for index in range(300):
            writer.write(np.full((240, 320, 3), index % 256, np.uint8))

    def peak(frames: int) -> int:
        command = [sys.executable, "-c", PEAK, str(path), which, str(frames)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    # The 260 frames more would be 60 000 kB.
    assert peak(300) - peak(40) < 15_000


def test_importing_the_package_imports_no_torch():
    code = "import sys, cavis.video; print([name for name in ('torch', 'decord', 'gradio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


REFUSED = {
    "empty": "is empty; accepted are MP4/MOV",
    "text": "is a text file, not a video; accepted are MP4/MOV",
    "junk": "is an unknown kind of file, not a video",
    "junk behind a header": "could not be read as MP4/MOV: it is damaged or not complete",
    "index lost": "could not be read as MP4/MOV: it is damaged or not complete",
    "hls": "is a playlist, a list of other files or addresses, not a video",
    "concat": "is a playlist",
    "concat without a header": "is a playlist",
    "sdp": "is a playlist",
    "dash": "is a playlist",
    "sound": "contains only sound; expected a file with a video stream",
    "sound with a cover": "contains only sound",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_with_a_sentence(name, not_videos):
    with pytest.raises(VideoError, match=REFUSED[name]):
        open_video(not_videos[name])


def test_a_missing_or_unreadable_file_is_refused_with_a_sentence(tmp_path, clip, monkeypatch):
    with pytest.raises(VideoError, match=r"There is no file gone\.mp4"):
        open_video(tmp_path / "gone.mp4")
    path = clip("one")

    def forbidden(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(VideoError, match=r"one.mp4 could not be opened: Permission denied"):
        open_video(path)


def test_a_folder_of_pictures_is_read_in_natural_order(tmp_path):
    for number in (10, 9, 2):
        Image.fromarray(np.full((8, 12, 3), number, np.uint8)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    with open_video(tmp_path, fps=4) as source:
        assert (len(source), source.height, source.width) == (3, 8, 12)
        assert [int(frame[0, 0, 0]) for frame in source] == [2, 9, 10]
        np.testing.assert_allclose(source.timestamps, [0, 0.25, 0.5])


def test_pictures_are_turned_as_their_exif_data_says_and_laid_on_black(tmp_path):
    content = np.zeros((8, 12, 3), np.uint8)
    content[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(content).save(tmp_path / "a.png", exif=exif)
    transparent = np.full((12, 8, 4), 255, np.uint8)
    transparent[:6, :, 3] = 0
    Image.fromarray(transparent).save(tmp_path / "b.png")
    Image.fromarray(np.full((12, 8), 0x8000, np.uint16)).save(tmp_path / "c.png")
    with open_video(tmp_path) as source:
        np.testing.assert_array_equal(source[0], np.rot90(content, -1))
        np.testing.assert_array_equal(source[1][:6], 0)
        np.testing.assert_array_equal(source[1][6:], 255)
        np.testing.assert_array_equal(source[2], 128)


def test_one_picture_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(np.full((8, 12, 3), 7, np.uint8)).save(tmp_path / "a.jpg")
    with open_video(str(tmp_path / "a.jpg")) as source:
        assert len(source) == 1


def test_folders_that_are_no_video_are_refused(tmp_path):
    with pytest.raises(VideoError, match="contains no pictures"):
        open_video(tmp_path)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(VideoError, match=r"one size .*a.png has 12 x 8, b.png has 12 x 9"):
        open_video(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:100])
    with open_video(tmp_path) as source, pytest.raises(VideoError, match=r"picture b\.png cannot be read"):
        source[1]
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"picture b\.png cannot be read"):
        open_video(tmp_path)


def test_arrays_and_lists_of_frames_are_videos():
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    for given in (frames, list(frames)):
        with open_video(given, fps=2) as source:
            assert (len(source), source.height, source.width) == (2, 4, 6)
            np.testing.assert_array_equal(np.stack(list(source)), frames)
            np.testing.assert_allclose(source.timestamps, [0, 0.5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((0, 4, 6, 3), np.uint8), "at least one frame"),
        (np.zeros((4, 6, 3), np.uint8), r"shape \(frames, height, width, 3\), got \(4, 6, 3\)"),
        (np.zeros((2, 4, 6, 3), np.float32), "got float32 of shape"),
        (np.zeros((2, 3, 4, 6), np.uint8), r"got uint8 of shape \(3, 4, 6\)"),
        ([np.zeros((4, 6, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)], "frames of one size"),
        ([1, 2], "got int"),
        (3, "Expected a path, an array or a list of frames, got int"),
    ],
)
def test_arrays_that_are_no_video_are_refused(given, message):
    with pytest.raises(VideoError, match=message):
        open_video(given)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(fps):
    with pytest.raises(VideoError, match="above 0"):
        open_video(np.zeros((2, 4, 6, 3), np.uint8), fps=fps)


def test_trimming_keeps_every_strideth_frame_between_the_times_and_its_time(clip):
    with open_video(clip("long")) as source:
        part = trim(source, start=2, end=5, stride=7)
        np.testing.assert_allclose(part.timestamps, [2, 2.7, 3.4, 4.1, 4.8])
        assert (part.height, part.width) == (source.height, source.width)
        for frame, index in zip(part, (20, 27, 34, 41, 48), strict=True):
            np.testing.assert_array_equal(frame, source[index])
        np.testing.assert_array_equal(trim(part, start=2.7)[0], source[27])


def test_trimming_tells_what_the_source_tells(cut):
    with open_video(cut("front")) as source:
        part = trim(source, end=1)
        assert part.notes == source.notes
        assert part.lost_frames == source.lost_frames > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 2}, "no frame between 2 s and its end: the last one is at 1.100 s"),
        ({"start": -1}, "start of 0 or more"),
        ({"start": float("nan")}, "start of 0 or more"),
        ({"start": 1, "end": 1}, "end after the start"),
        ({"stride": 0}, "stride of 1 or more"),
        ({"stride": 1.5}, "whole stride"),
        ({"start": 0.31, "end": 0.39}, "no frame between 0.31 s and 0.39 s"),
    ],
)
def test_parts_that_do_not_exist_are_refused(arguments, message, clip):
    with open_video(clip("h264")) as source, pytest.raises(VideoError, match=message):
        trim(source, **arguments)
