"""A run that was stopped, closed, interrupted or killed ends like one that was not: bit for bit."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from nano import Squares, nano_model, nano_run

from cavis.checkpoints.files import CheckpointError, load_weights, read_model_file, read_training
from cavis.config import DataRules, Reading, Swin
from cavis.model import build_model
from cavis.training.log import read_log
from cavis.training.loop import LATEST, LOG, MODEL, Run, train

STEPS = 6


def finish(run: Run, seed: int = 0, source=None) -> dict:
    """Train to the end from wherever the run is; the last training state."""
    for _ in train(run, nano_model(seed), source or Squares()):
        pass
    return read_training(run.folder / LATEST)


def assert_identical(left, right, path=""):
    """Nested states equal to the last bit."""
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_identical(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_identical(*pair, f"{path}[{i}]")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


def assert_log_is_complete(run: Run, other: Run) -> None:
    """Every step once and in order, with the same numbers as in the other run."""
    lines, reference = read_log(run.folder / LOG), read_log(other.folder / LOG)
    assert [line["step"] for line in lines] == list(range(1, run.schedule.steps + 1))
    timeless = [[line | {"seconds": 0} for line in log] for log in (lines, reference)]
    assert timeless[0] == timeless[1]


@pytest.fixture(scope="module", params=["segmenter", "tracker"])
def uninterrupted(request, tmp_path_factory):
    """A run to the end, and its last state."""
    run = nano_run(tmp_path_factory.mktemp("whole"), request.param, STEPS, workers=0)
    return run, finish(run)


@pytest.fixture
def again(uninterrupted, tmp_path):
    """The same run in another folder."""
    return replace(uninterrupted[0], folder=tmp_path)


@pytest.mark.parametrize(("at", "checkpoint_every"), [(1, 200), (3, 2), (4, 2)])
def test_closed_and_resumed_equals_uninterrupted(uninterrupted, again, at, checkpoint_every):
    run = replace(again, checkpoint_every=checkpoint_every)
    begun = train(run, nano_model(), Squares())
    assert [report.step for report in islice(begun, at)] == list(range(1, at + 1))
    begun.close()
    assert_identical(finish(run, seed=9), uninterrupted[1])  # other initial weights: all comes from the checkpoint
    assert_log_is_complete(run, uninterrupted[0])


def test_a_second_run_in_a_folder_is_refused_while_the_first_one_trains_there(tmp_path, monkeypatch):
    monkeypatch.setattr("cavis.training.loop._PATIENCE", 0.2)
    run = nano_run(tmp_path / "run", steps=3, workers=0)
    first = train(run, nano_model(), Squares())
    next(first)
    with pytest.raises(ValueError, match="another one is training there"):
        next(train(run, nano_model(), Squares()))
    first.close()
    assert [report.step for report in train(run, nano_model(), Squares())] == [2, 3]


def test_a_stop_ends_the_run_after_its_step_and_it_can_go_on(uninterrupted, again):
    stop = threading.Event()
    stop.set()
    assert [report.step for report in train(again, nano_model(), Squares(), stop)] == [1]
    assert read_training(again.folder / LATEST)["done"] == 1
    assert_identical(finish(again), uninterrupted[1])


def test_an_interrupt_inside_a_step_leaves_no_trace_of_the_step(uninterrupted, again):
    run = replace(again, checkpoint_every=2)
    model = nano_model()
    part = model.segmenter if run.stage == "segmenter" else model.tracker
    calls = []

    def interrupt(*_):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt

    part.register_forward_hook(interrupt)  # after the batch norms have taken in the batch
    with pytest.raises(KeyboardInterrupt):
        list(train(run, model, Squares()))
    assert read_training(run.folder / LATEST)["done"] == 2
    assert_identical(finish(run), uninterrupted[1])
    assert_log_is_complete(run, uninterrupted[0])


def test_layers_that_draw_by_themselves_draw_the_same_after_a_stop(tmp_path):
    base = nano_run(tmp_path / "whole", steps=3, workers=0)
    backbone = Swin(width=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.5)
    preset = replace(base.preset, model=replace(base.preset.model, backbone=backbone))
    whole = replace(base, preset=preset)

    def model():
        torch.manual_seed(0)
        return build_model(preset.model, "segmenter")

    expected = [report.loss for report in train(whole, model(), Squares())]
    parts = replace(whole, folder=tmp_path / "parts")
    begun = train(parts, model(), Squares())
    found = [next(begun).loss]
    begun.close()
    torch.manual_seed(9)
    found += [report.loss for report in train(parts, model(), Squares())]
    assert found == expected
    assert_identical(read_training(parts.folder / LATEST), read_training(whole.folder / LATEST))


def test_a_background_worker_draws_the_same_batches(uninterrupted, again):
    assert_identical(finish(replace(again, workers=2)), uninterrupted[1])


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    run = nano_run(tmp_path / "killed", steps=STEPS, checkpoint_every=2, workers=0)
    tests = Path(__file__).parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]; import torch; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        f"import nano; nano.train_in_child({str(run.folder)!r}, {STEPS})"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    for line in child.stdout:
        if int(line) == 3:
            break
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert read_training(run.folder / LATEST)["done"] in (2, 4)
    whole = replace(run, folder=tmp_path / "whole")
    assert_identical(finish(run, seed=9), finish(whole))
    assert_log_is_complete(run, whole)
    assert {path.name for path in run.folder.iterdir()} >= {LATEST, LOG, MODEL}


def test_a_finished_run_stays_as_it_is(uninterrupted):
    run, state = uninterrupted
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert list(train(run, nano_model(3), Squares())) == []
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    assert state["done"] == STEPS


def test_the_model_file_holds_the_last_weights(uninterrupted):
    run, state = uninterrupted
    about, weights = read_model_file(run.folder / MODEL)
    assert about.config == run.preset.model
    assert about.training == f"{run.stage} stage, {STEPS} of {STEPS} steps, seed 5"
    model = nano_model(4)
    load_weights(model, weights, "the run")
    assert_identical(dict(model.state_dict()), dict(state["model"]))


def test_the_model_file_holds_the_moving_average_of_the_weights_if_asked_for(tmp_path):
    """Plain mean of the first 1 / (1 - decay) steps, then exponential; also over a stop, and in a run that resumes."""
    decay = 0.75
    run = nano_run(tmp_path / "whole", "segmenter", STEPS, workers=0)
    run = replace(run, schedule=replace(run.schedule, ema_decay=decay))
    model, expected = nano_model(0), None
    for done, _ in enumerate(train(run, model, Squares())):
        now = {name: value.double() for name, value in model.state_dict().items() if value.is_floating_point()}
        share = max(1 - decay, 1 / (done + 1))
        expected = now if done == 0 else {name: torch.lerp(expected[name], now[name], share) for name in now}
    weights = read_model_file(run.folder / MODEL)[1]
    last = model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name].double(), value, rtol=0, atol=1e-6)
    for kind in ("weight", "running_mean"):
        assert any(not torch.equal(weights[name], last[name]) for name in expected if name.endswith(kind))
    again = replace(run, folder=tmp_path / "again")
    begun = train(again, nano_model(0), Squares())
    next(begun), next(begun)
    begun.close()
    finish(again, seed=3)
    assert_identical(read_model_file(again.folder / MODEL)[1], weights)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(ValueError, match="expected an ema_decay of at least 0 and below 1, got"):
        replace(nano_run(Path("nowhere"), "segmenter", STEPS).schedule, ema_decay=decay)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed 5); expected seed 6"),
        ({"stage": "tracker"}, "stage 'segmenter'); expected stage 'tracker'"),
        ({"schedule": {"steps": 7}}, "schedule.steps 6); expected schedule.steps 7"),
        ({"reading": {"alignment": "inverted"}}, "config.reading.alignment 'true'); expected config.reading.alignment"),
        ({"loss": {"points": 7}}, "loss.points 128); expected loss.points 7"),
        ({"rules": {"always_present": True}}, "rules.always_present False); expected rules.always_present True"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_folder_of_another_run_is_refused(tmp_path, change, named):
    run = nano_run(tmp_path, steps=STEPS, workers=0)
    next(begun := train(run, nano_model(), Squares()))
    begun.close()
    preset = run.preset
    if "reading" in change:
        preset = replace(preset, model=replace(preset.model, reading=Reading(**change["reading"])))
    if "loss" in change:
        preset = replace(preset, loss=replace(preset.loss, **change["loss"]))
    if "rules" in change:
        preset = replace(preset, rules=DataRules(**change["rules"]))
    schedule = replace(run.schedule, **change.get("schedule", {}))
    plain = {key: value for key, value in change.items() if key in ("seed", "stage")}
    other = replace(run, preset=preset, schedule=schedule, **plain)
    with pytest.raises(CheckpointError) as caught:
        next(train(other, nano_model(), Squares()))
    assert named in str(caught.value)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_the_run_and_spoils_nothing(tmp_path, what):
    run = nano_run(tmp_path, steps=STEPS, workers=0)
    model = nano_model()
    begun = train(run, model, Squares())
    next(begun)
    weight = model.segmenter.query_decoder.heads.class_head.bias
    if what == "loss":
        before = weight.data.clone()
        weight.data.fill_(torch.nan)
    else:
        before = weight.data.clone()
        weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(FloatingPointError, match=rf"the {what} of step 2 is not finite"):
        next(begun)
    assert not (tmp_path / LATEST).exists()
    if what == "gradient":
        assert torch.equal(weight, before)


def test_the_report_tells_what_the_step_did(uninterrupted):
    run, _ = uninterrupted
    lines = read_log(run.folder / LOG)
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["terms"].values()), abs=1e-3)
        assert line["gradient_norm"] > 0
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])
