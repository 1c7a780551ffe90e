"""Lessons: what is roughened, what moves, what is left behind when one is stopped."""

import numpy as np
import pytest
import torch

from cavis.checkpoints.hub import find_model
from cavis.training.lesson import Lesson, look, parts_of, truth
from cavis.training.loop import LATEST
from cavis.training.start import fresh_model


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("stage", "rough"), [("segmenter", "query decoder"), ("tracker", "tracker"), ("refiner", "refiner")]
)
def test_only_what_is_to_learn_again_is_roughened(tmp_path, stage, rough):
    lesson = Lesson(stage=stage, folder=tmp_path)
    trained = dict(
        parts_of(fresh_model(lesson.preset, stage, 0, find_model("tiny_refiner" if stage == "refiner" else "tiny")))
    )
    for name, part in parts_of(lesson.start()):
        assert same(part, trained[name]) == (name != rough), name


def test_a_step_moves_what_learns_and_a_stopped_lesson_leaves_a_checkpoint_and_goes_on(tmp_path):
    lesson = Lesson(stage="tracker", folder=tmp_path, steps=2, look_every=100)
    run = lesson.run()
    first = next(run)
    run.close()
    assert (tmp_path / LATEST).exists()
    assert {part.name for part in first.parts if part.learns} == {"tracker"}
    assert all((part.moved > 0) == part.learns for part in first.parts)
    assert first.picture.shape == truth().shape
    assert first.picture.dtype == np.uint8
    rest = list(lesson.run())
    assert [step.step for step in rest] == [2]
    assert rest[-1].parts[-1].moved > first.parts[-1].moved


def test_looking_leaves_the_model_as_it_was(tmp_path):
    lesson = Lesson(stage="segmenter", folder=tmp_path)
    model = lesson.start()
    model.segmenter.train()
    model.linker.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    look(model, lesson.preset, "segmenter")
    assert model.segmenter.training
    assert not model.linker.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
