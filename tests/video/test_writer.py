import av
import numpy as np
import pytest

from cavis.video import VideoError, VideoWriter, open_video

VARIABLE = [0, 0.04, 0.5, 0.51, 2.0]


def write(path, frames, **arguments):
    with VideoWriter(path, *frames[0].shape[:2], **arguments) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.fixture
def frames(draw):
    return [draw(index) for index in range(5)]


def test_files_are_what_browsers_play(tmp_path, frames):
    path = tmp_path / "out.mp4"
    write(path, frames, fps=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1  # BT.709, said aloud
        assert len(container.streams) == 1
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_colours_survive(tmp_path, frames):
    write(tmp_path / "out.mp4", frames, fps=10)
    for read, written in zip(open_video(tmp_path / "out.mp4"), frames, strict=True):
        assert np.abs(read.astype(int) - written).mean() < 4
    flat = [np.full((32, 32, 3), colour, np.uint8) for colour in ((255, 255, 255), (0, 0, 0), (200, 30, 60))]
    write(tmp_path / "flat.mp4", flat, fps=10, crf=4)
    for read, written in zip(open_video(tmp_path / "flat.mp4"), flat, strict=True):
        assert np.abs(read.astype(int) - written).max() <= 4


def test_given_times_are_kept_and_start_at_zero(tmp_path, frames):
    for offset in (0, 7.3):
        write(tmp_path / "out.mp4", frames, timestamps=np.array(VARIABLE) + offset)
        np.testing.assert_allclose(open_video(tmp_path / "out.mp4").timestamps, VARIABLE, atol=1 / 90_000)


def test_times_can_come_with_the_frames(tmp_path, frames):
    with VideoWriter(tmp_path / "out.mp4", 64, 80) as writer:
        for frame, time in zip(frames, VARIABLE, strict=True):
            writer.write(frame, time)
    np.testing.assert_allclose(open_video(tmp_path / "out.mp4").timestamps, VARIABLE, atol=1 / 90_000)


@pytest.mark.parametrize("step", [1e-7, 1e-6, 0.4 / 90_000])
def test_frames_nearer_than_a_tick_are_written_a_tick_apart(tmp_path, frames, step):
    times = [0, step, 2 * step, 3 * step, 0.5]
    write(tmp_path / "out.mp4", frames, timestamps=times)
    np.testing.assert_allclose(
        open_video(tmp_path / "out.mp4").timestamps, [*(np.arange(4) / 90_000), 0.5], atol=0.1 / 90_000
    )


@pytest.mark.parametrize("later", [0.04, 0.03])
def test_times_that_come_with_the_frames_must_increase(tmp_path, frames, later):
    words = rf"increase, got {later} s for a frame after the one at 0\.04 s"
    with VideoWriter(tmp_path / "out.mp4", 64, 80) as writer:
        writer.write(frames[0], 0)
        writer.write(frames[1], 0.04)
        with pytest.raises(VideoError, match=words):
            writer.write(frames[2], later)


@pytest.mark.parametrize("fps", [10, 23.976, 29.97, 1, 120])
def test_rates_are_kept_to_the_end_of_the_last_frame(tmp_path, frames, fps):
    write(tmp_path / "out.mp4", frames, fps=fps)
    np.testing.assert_allclose(open_video(tmp_path / "out.mp4").timestamps, np.arange(5) / fps, atol=1 / 90_000)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(5 / fps, abs=2e-3)


@pytest.mark.parametrize("size", [(1, 1), (47, 63), (48, 63), (47, 64)])
def test_odd_sizes_are_extended_by_a_copy_of_the_edge(tmp_path, size):
    height, width = size
    frame = np.zeros((height, width, 3), np.uint8)
    frame[-1], frame[:, -1] = 255, 255
    write(tmp_path / "out.mp4", [frame], fps=10, crf=1)
    read = open_video(tmp_path / "out.mp4")[0]
    assert read.shape == (height + height % 2, width + width % 2, 3)
    assert read[height - 1 :].min() > 180
    assert read[:, width - 1 :].min() > 180


def test_one_frame_is_a_video(tmp_path, frames):
    write(tmp_path / "out.mp4", frames[:1], timestamps=[3.0])
    with open_video(tmp_path / "out.mp4") as source:
        assert len(source) == 1
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration > 0


def test_an_error_leaves_nothing_and_keeps_what_was_there(tmp_path, frames):
    def fail_half_way():
        with VideoWriter(path, 64, 80, fps=10) as writer:
            writer.write(frames[0])
            raise RuntimeError("half way")

    path = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    write(path, frames, fps=10)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_the_file_appears_only_when_it_is_whole(tmp_path, frames):
    with VideoWriter(tmp_path / "out.mp4", 64, 80, fps=10) as writer:
        writer.write(frames[0])
        assert not (tmp_path / "out.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").stat().st_mode & 0o400


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((64, 81, 3), np.uint8), r"got \(64, 81, 3\)"),
        (np.zeros((64, 80), np.uint8), r"got \(64, 80\)"),
        (np.zeros((64, 80, 3), np.float32), "float32"),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(tmp_path, frame, message):
    with pytest.raises(VideoError, match=message), VideoWriter(tmp_path / "out.mp4", 64, 80, fps=10) as writer:
        writer.write(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timestamps": [0, 1, 1, 2, 3]}, "increasing"),
        ({"timestamps": [0, 1, float("nan"), 2, 3]}, "increasing"),
        ({"timestamps": [0, 1]}, "one frame for each of the 2 timestamps"),
        ({"fps": 0}, "more than 0"),
        ({}, "Expected the time of the frame"),
    ],
)
def test_impossible_times_are_refused(tmp_path, frames, arguments, message):
    with pytest.raises(VideoError, match=message):
        write(tmp_path / "out.mp4", frames, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(VideoError, match="No frame was written"), VideoWriter(tmp_path / "out.mp4", 64, 80, fps=10):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path, frames):
    with pytest.raises(VideoError, match="There is no folder"):
        write(tmp_path / "gone" / "out.mp4", frames, fps=10)
