"""The commands as a user types them."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cavis import cli
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.training.log import read_log
from cavis.video import VideoWriter, open_video


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cavis = Callable[..., Outcome]


@pytest.fixture
def cavis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cavis:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cavis", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capsys.readouterr()
        code = exit_info.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short annotated clips."""
    folder = tmp_path_factory.mktemp("world") / "clips"
    synthesize(folder, clips=2, seed=5, config=TwinsConfig(frames=4))
    return folder


@pytest.fixture(scope="module")
def film(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of them as a video."""
    path = tmp_path_factory.mktemp("film") / "clip.mp4"
    frames = open_video(sorted((world / "JPEGImages").iterdir())[0])
    with VideoWriter(path, frames.height, frames.width, fps=12) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_a_video_becomes_a_film_a_results_list_and_a_table_that_agree(cavis: Cavis, film: Path, tmp_path: Path) -> None:
    outcome = cavis("track", film, "--model", "tiny", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with open_video(tmp_path / "out" / "tracked.mp4") as tracked, open_video(film) as original:
        assert len(tracked) == len(original) == 4
        assert np.allclose(tracked.timestamps, original.timestamps, atol=1e-3)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "tracks.csv").open()))
    assert len(results) == 10
    assert all(len(entry["segmentations"]) == 4 for entry in results)
    visible = {tuple(mask is not None for mask in entry["segmentations"]) for entry in results}
    rows_of = Counter(row["track"] for row in rows)
    assert set(rows_of.values()) <= {sum(pattern) for pattern in visible}
    assert "twins' world" in outcome.out


def test_a_folder_of_frames_is_a_clip_too_and_lite_is_the_default(cavis: Cavis, world: Path, tmp_path: Path) -> None:
    frames = sorted((world / "JPEGImages").iterdir())[1]
    outcome = cavis("track", frames, "--out", tmp_path / "out", "--stride", 2)
    assert outcome.code == 0, outcome.err
    with open_video(tmp_path / "out" / "tracked.mp4") as tracked:
        assert len(tracked) == 2
    assert "anything else I find is just an object to me" in outcome.out


def test_a_folder_of_clips_is_tracked_clip_by_clip_as_each_alone(
    cavis: Cavis, world: Path, film: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(sorted((world / "JPEGImages").iterdir())[1], clips / "frames")
    shutil.copy(film, clips / "film.mp4")
    (clips / "notes.txt").write_text("not a clip")
    assert cavis("track", clips, "--model", "tiny", "--out", tmp_path / "all").code == 0
    assert {folder.name for folder in (tmp_path / "all").iterdir()} == {"film", "frames"}
    for clip in (clips / "frames", clips / "film.mp4"):
        assert cavis("track", clip, "--model", "tiny", "--out", tmp_path / "alone" / clip.stem).code == 0
        for name in ("results.json", "tracks.csv"):
            assert (tmp_path / "all" / clip.stem / name).read_bytes() == (
                tmp_path / "alone" / clip.stem / name
            ).read_bytes()
    again = cavis("track", clips, "--model", "tiny", "--out", tmp_path / "all")
    assert (again.code, "--overwrite" in again.err) == (2, True)


def test_a_clip_that_cannot_be_read_is_told_and_does_not_keep_the_others_from_being_tracked(
    cavis: Cavis, film: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(film, clips / "whole.mp4")
    (clips / "cut.mp4").write_bytes(film.read_bytes()[:300])
    outcome = cavis("track", clips, "--model", "tiny", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "1 of 2 clips were tracked. cut: " in outcome.err
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"whole"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"certainly no video" * 9, "not a video"), (b"#EXTM3U\n#EXTINF:1,\n/etc/hosts\n", "not a video")],
)
def test_what_is_no_video_is_refused_in_a_sentence_and_leaves_nothing(
    cavis: Cavis, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    outcome = cavis("track", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("cavis: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_are_replaced_only_when_asked(cavis: Cavis, film: Path, tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("precious")
    outcome = cavis("track", film, "--out", tmp_path)
    assert outcome.code == 2
    assert "--overwrite" in outcome.err
    assert (tmp_path / "tracks.csv").read_text() == "precious"
    assert cavis("track", film, "--model", "tiny", "--out", tmp_path, "--overwrite").code == 0
    assert (tmp_path / "tracks.csv").read_text().startswith("frame,")


def test_an_unknown_model_is_answered_with_the_known_ones(cavis: Cavis, film: Path, tmp_path: Path) -> None:
    outcome = cavis("track", film, "--model", "enormous", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "tiny" in outcome.err
    assert "enormous" in outcome.err


def test_a_synthesized_set_can_be_evaluated(cavis: Cavis, tmp_path: Path) -> None:
    made = cavis("synthesize", "--clips", 2, "--seed", 3, "--frames", 3, "--out", tmp_path / "set")
    assert made.code == 0, made.err
    outcome = cavis("evaluate", tmp_path / "set", "--model", "tiny", "--out", tmp_path / "scores")
    assert outcome.code == 0, outcome.err
    numbers = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    rest = ["ABO", "recall50", "HOTA", "AssA", "IDF1", "identity_switches"]
    assert list(numbers) == ["AP", "AP50", "AP75", "AR1", "AR10", *rest]
    assert numbers["identity_switches"] >= 0
    assert all(0 <= value <= 1 for name, value in numbers.items() if name != "identity_switches")
    assert f"{numbers['AP']:.3f}" in outcome.out


def test_the_tracker_stage_asks_for_a_segmenter(cavis: Cavis, tmp_path: Path) -> None:
    outcome = cavis("train", "--stage", "tracker", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "segmenter" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_exit_code_two(cavis: Cavis) -> None:
    assert cavis("train", "--stage", "nonsense", "--out", "x").code == 2


def test_interrupted_training_leaves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cavis", "train", "--stage", "segmenter", "--steps", "4", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and read_log(log)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    done = len(read_log(log))
    assert 1 <= done < 4
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    assert [line["step"] for line in read_log(log)] == [1, 2, 3, 4]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
