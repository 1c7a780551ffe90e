import json

import pytest

from cavis.checkpoints.hub import load_model
from cavis.demo.examples import FOLDER, RECIPES, Shelf, fingerprint, make
from cavis.demo.jobs import Job
from cavis.presets import LABORATORY_MODEL
from cavis.video import open_video


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf()


def test_three_small_clips_are_shipped(shelf: Shelf):
    assert [example.name for example in shelf.examples] == [recipe.name for recipe in RECIPES]
    assert len(shelf.examples) == 3
    assert all(path.stat().st_size < 250_000 for path in FOLDER.glob("*.mp4"))


def test_the_shipped_results_are_those_of_the_shipped_model(shelf: Shelf):
    """If this fails, the weights have changed: run ``python -m cavis.demo.examples``."""
    assert shelf.model == load_model(LABORATORY_MODEL, device="cpu").about.name
    assert shelf.weights == fingerprint(LABORATORY_MODEL)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_shipped_result_belongs_to_its_clip(shelf: Shelf, index: int, tmp_path):
    job = Job("key", None, tmp_path)
    example = shelf.put(index, job)
    source = job.source()
    assert len(source) == len(job.result) == example.info.frames == len(open_video(job.video))
    assert (source.height, source.width) == (job.result.height, job.result.width)
    assert shelf.poster(example).exists()


def test_an_example_that_is_not_there_is_refused(shelf: Shelf, tmp_path):
    with pytest.raises(IndexError):
        shelf.put(3, Job("key", None, tmp_path))


def test_making_them_again_gives_the_same_clip(shelf: Shelf, tmp_path):
    from dataclasses import replace

    short = replace(RECIPES[0], config=replace(RECIPES[0].config, frames=4))
    make(tmp_path / "first", recipes=(short,))
    make(tmp_path / "second", recipes=(short,))
    for name in (f"{short.name}.mp4", f"{short.name}.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert json.loads((tmp_path / "first" / "index.json").read_text())["examples"][0]["info"]["frames"] == 4
