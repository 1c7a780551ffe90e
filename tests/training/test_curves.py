"""TensorBoard's files hold the numbers of the log, each step once."""

import math
import sys
from dataclasses import replace

import pytest
from nano import Squares, nano_model, nano_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cavis.training.curves import require_tensorboard
from cavis.training.log import StepReport, TrainingLog, read_log
from cavis.training.loop import CURVES, LOG, train

TAGS = {"loss", "learning_rate", "gradient_norm", "seconds", "terms/class", "terms/mask"}


def report(step, loss=1.5):
    terms = {"class": loss - 1, "mask": 1.0}
    return StepReport(
        step=step, steps=9, loss=loss, terms=terms, learning_rate=1e-4, gradient_norm=2.0, seconds=step / 10
    )


def write(path, steps, start=0, curves=True, loss=1.5):
    with TrainingLog(path / LOG, start, path / CURVES if curves else None) as log:
        for step in steps:
            log.write(report(step, loss))


def curves(path):
    """Every curve as (step, value) pairs by step, as TensorBoard reads the folder.

    It reads file after file by name, and the names of two that are begun within a second are in no order.
    """
    read = EventAccumulator(str(path / CURVES), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: sorted((one.step, one.value) for one in read.Scalars(tag)) for tag in read.Tags()["scalars"]}


def assert_curves_are_the_log(path):
    lines, found = read_log(path / LOG), curves(path)
    flat = [line | {f"terms/{name}": value for name, value in line["terms"].items()} for line in lines]
    for tag, points in found.items():
        assert [step for step, _ in points] == [line["step"] for line in lines], tag
        assert [value for _, value in points] == pytest.approx([line[tag] for line in flat]), tag


def test_every_number_of_the_log_is_a_curve_and_there_before_the_run_ends(tmp_path):
    with TrainingLog(tmp_path / LOG, 0, tmp_path / CURVES) as log:
        for step in (1, 2, 3):
            log.write(report(step))
        assert_curves_are_the_log(tmp_path)
    assert curves(tmp_path).keys() == TAGS
    assert_curves_are_the_log(tmp_path)


def test_a_run_that_goes_on_draws_no_step_twice(tmp_path):
    write(tmp_path, range(1, 6))
    write(tmp_path, range(4, 8), start=3, loss=2.5)
    assert [step for step, _ in curves(tmp_path)["loss"]] == list(range(1, 8))
    assert curves(tmp_path)["loss"][3][1] == 2.5
    assert_curves_are_the_log(tmp_path)


def test_curves_asked_for_later_begin_with_the_first_step(tmp_path):
    write(tmp_path, range(1, 4), curves=False)
    assert not (tmp_path / CURVES).exists()
    write(tmp_path, range(4, 6), start=3)
    assert_curves_are_the_log(tmp_path)


def test_a_step_without_a_finite_gradient_is_no_obstacle(tmp_path):
    """Neither when it is written, nor when curves are asked for later."""
    for folder, later in ((tmp_path / "at once", False), (tmp_path / "later", True)):
        folder.mkdir()
        with TrainingLog(folder / LOG, 0, None if later else folder / CURVES) as log:
            for step, norm in ((1, 2.0), (2, math.inf), (3, 2.0)):
                log.write(replace(report(step), gradient_norm=norm))
        write(folder, [4], start=3)
        points = curves(folder)["gradient_norm"]
        assert [step for step, _ in points] == [1, 2, 3, 4]
        assert [math.isfinite(value) for _, value in points] == [True, False, True, True]


def test_a_training_run_that_was_stopped_goes_on_with_its_curves(tmp_path):
    run = nano_run(tmp_path, steps=3, workers=0, tensorboard=True)
    begun = train(run, nano_model(), Squares())
    next(begun)
    begun.close()
    assert len(list(train(replace(run, checkpoint_every=1), nano_model(3), Squares()))) == 2
    assert_curves_are_the_log(tmp_path)
    assert len(curves(tmp_path)["loss"]) == 3


def test_a_missing_package_is_a_sentence_that_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"expected the package tensorboard .* pip install 'cavis\[tensorboard\]'"):
        require_tensorboard()
    with pytest.raises(ValueError, match="expected the package tensorboard"):
        TrainingLog(tmp_path / LOG, 0, tmp_path / CURVES)
