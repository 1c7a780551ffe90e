"""``cavis embed`` as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from cavis.analysis import read_table, vectors
from cavis.data.synthetic import TwinsConfig, synthesize


def cavis(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cavis", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, a folder of frames, and the table of both."""
    folder = tmp_path_factory.mktemp("embed")
    synthesize(folder / "world", 1, 3, TwinsConfig(frames=4))
    (folder / "frames").mkdir()
    for t in range(2):
        Image.open(folder / "world" / "JPEGImages" / "00000" / f"{t:05d}.jpg").save(folder / "frames" / f"{t}.png")
    done = cavis("embed", folder / "world", folder / "frames", "--out", folder / "table.parquet")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_annotated_and_other_clips_come_into_one_table(made):
    folder, done = made
    table = read_table(folder / "table.parquet")
    assert table["clip"].unique().tolist() == ["world 0", "frames"]
    annotated = table[table["clip"] == "world 0"]
    assert (annotated["identity"] >= 0).mean() > 0.5
    assert (table[table["clip"] == "frames"]["identity"] == -1).all()
    assert f"{len(table)} rows of 2 clips" in done.stdout
    assert vectors(table, "context_aware").shape == (len(table), 2 * vectors(table, "core").shape[1])


def test_the_same_frames_have_the_same_embeddings_whatever_they_come_from(made):
    table = read_table(made[0] / "table.parquet")
    first, second = (table[(table["clip"] == name) & (table["frame"] == 0)] for name in ("world 0", "frames"))
    found = vectors(first, "core")[:, None] - vectors(second, "core")
    assert np.abs(found).max(axis=-1).min(axis=0).max() < 1e-4


def test_the_file_says_how_it_came_about_and_other_programs_can_read_it(made):
    file = pyarrow.parquet.read_table(made[0] / "table.parquet")
    assert {"clip", "frame", "track", "core", "context_aware"} <= set(file.column_names)
    about = json.loads(file.schema.metadata[b"PANDAS_ATTRS"])
    assert (about["model"], about["min_score"], about["seed"]) == ("tiny", 0.3, None)
    assert {"cavis", "torch"} <= set(about["versions"])


def test_nothing_is_replaced_unasked_and_wrong_input_is_one_sentence(made, tmp_path):
    folder, _ = made
    for arguments, words in (
        ((folder / "frames", "--out", folder / "table.parquet"), "expected --overwrite"),
        ((tmp_path / "nothing", "--out", tmp_path / "a.parquet"), "expected a video file"),
    ):
        done = cavis("embed", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
