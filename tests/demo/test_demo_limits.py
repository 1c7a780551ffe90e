from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavis.demo.limits import DemoLimits, Part, describe, duration_words, refusal, suggested, whole
from cavis.video import VideoInfo, probe, sanitize


def info(frames: int, fps: float) -> VideoInfo:
    return VideoInfo(640, 480, frames, fps, frames / fps, "h264", "mp4")


clips = st.builds(
    info, st.integers(1, 100_000), st.sampled_from([5.0, 10.0, 12.5, 23.976, 25.0, 29.97, 30.0, 60.0, 240.0])
)


@pytest.mark.parametrize(
    "part", [Part(0, 2, 1), Part(0.5, 1.5, 1), Part(0.25, 1.31, 3), Part(1.9, 2, 1), Part(0, 0.05, 1), Part(0, 2, 7)]
)
def test_the_announced_number_of_frames_is_the_number_kept(part: Part, clip: Path, tmp_path: Path):
    kept = sanitize(clip, tmp_path / "part.mp4", start=part.start, end=part.end, stride=part.stride)
    assert part.frames(probe(clip)) == kept.frames


@given(clips)
def test_the_whole_of_a_clip_has_all_of_its_frames(clip: VideoInfo):
    assert whole(clip).frames(clip) == clip.frames


@given(clips, st.integers(1, 500))
def test_the_suggested_part_is_accepted(clip: VideoInfo, frames: int):
    limits = DemoLimits(frames=frames)
    part = suggested(clip, limits)
    assert refusal(part, clip, limits) is None
    assert part.stride == 1 or clip.fps / part.stride >= 7.5


@given(clips, st.integers(1, 500))
def test_a_clip_that_fits_is_suggested_whole(clip: VideoInfo, spare: int):
    assert suggested(clip, DemoLimits(frames=clip.frames + spare)) == whole(clip)


@given(clips)
def test_a_part_that_is_too_long_is_refused_with_a_step_that_helps(clip: VideoInfo):
    limits = DemoLimits(frames=10)
    sentence = refusal(whole(clip), clip, limits)
    if clip.frames <= 10:
        assert sentence is None
    else:
        assert str(clip.frames) in sentence
        step = int("".join(character for character in sentence.split("every ")[1] if character.isdigit()))
        assert Part(0, whole(clip).end, step).frames(clip) <= limits.frames


@pytest.mark.parametrize("part", [Part(1, 1, 1), Part(2, 1, 1), Part(50, 60, 1)])
def test_a_part_without_frames_is_refused_with_a_sentence(part: Part):
    assert refusal(part, info(20, 10.0), DemoLimits()).endswith(".")


def test_the_limits_are_stated_in_words():
    sentence = DemoLimits(megabytes=123, frames=456).sentence()
    assert "123 MB" in sentence
    assert "456 frames" in sentence
    assert "MP4" in sentence


def test_a_clip_is_described_in_words():
    assert describe(info(369, 30.0)) == "12.3 s, 640 × 480 pixels, 30 frames a second, 369 frames"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "about a second"), (7.2, "about 7 s"), (27, "about 25 s"), (200, "about 3 min")]
)
def test_times_are_told_roughly(seconds: float, words: str):
    assert duration_words(seconds) == words
