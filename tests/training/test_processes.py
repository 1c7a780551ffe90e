"""Two real processes with half the clips each do what one process does with all of them."""

import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from hypothesis import given, settings
from hypothesis import strategies as st
from in_processes import CLIPS, STEPS, Motley, follow, model_of, preset, run_of
from nano import Squares, batch_of, empty, hide, nano_model, nano_run, squares
from test_loop import assert_identical

from cavis.checkpoints.files import CheckpointError, read_training
from cavis.data.loaders import StepBatches
from cavis.evaluation.shards import Share
from cavis.losses.point_sampling import of_clips
from cavis.losses.totals import alone
from cavis.training.log import read_log
from cavis.training.loop import LATEST, LOG, MODEL, train
from cavis.training.processes import Processes
from cavis.training.shared_norm import SharedBatchNorm, share_norms
from cavis.training.stages import STAGES
from cavis.training.watch import FAILED_STEP, point_draws, read_failed

HERE = Path(__file__).parent


def launch(*jobs: str) -> str:
    """Run jobs in two processes under torchrun; what they print."""
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher = subprocess.Popen(
        [*command, str(HERE / "in_processes.py"), *jobs],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said, errors = launcher.communicate(timeout=300)
    finally:
        launcher.terminate()  # it takes the processes with it
    assert launcher.returncode == 0, errors
    return said


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every run of this file: of one process, of two, and of both in turns."""
    root = tmp_path_factory.mktemp("runs")
    jobs = []
    for stage in STAGES:
        follow(run_of(stage, root / f"{stage}_1"))
        jobs.append(f"{stage}={root / f'{stage}_2'}=")
    begun = train(run_of("segmenter", root / "begun_by_1"), model_of(), Motley())
    list(islice(begun, 2))
    begun.close()
    jobs.append(f"segmenter={root / 'begun_by_1'}=")
    jobs += [f"segmenter={root / 'stopped'}=stop", f"segmenter={root / 'stopped'}=", f"segmenter={root / 'left'}=stop"]
    jobs.append(f"segmenter={root / 'failed'}=fail")
    (root / "said").write_text(launch(*jobs))
    return root


def said_of(folders: Path, run: str) -> list[str]:
    """What the processes said of a run."""
    return re.findall(rf"process \d, {run}: (.*)", (folders / "said").read_text())


def assert_same_training(one: Path, other: Path) -> None:
    """The same losses, terms and gradients at every step, up to rounding, and about the same weights at the end."""
    lines, reference = read_log(one / LOG), read_log(other / LOG)
    assert [line["step"] for line in lines] == [line["step"] for line in reference] == list(range(1, STEPS + 1))
    for line, expected in zip(lines, reference, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert line["terms"] == pytest.approx(expected["terms"], rel=1e-3, abs=2e-5)
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)
    state, wanted = read_training(one / LATEST), read_training(other / LATEST)
    assert state["done"] == wanted["done"] == STEPS
    assert state.keys() == wanted.keys()
    assert ("ema" in state) is (state["stage"] == "segmenter")
    for part in {"model", "ema"} & state.keys():
        for name, value in state[part].items():
            if name.endswith("attention.key.bias"):  # has no gradient but rounding, of which Adam makes whole steps
                continue
            torch.testing.assert_close(value, wanted[part][name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_learn_what_one_learns(folders, stage):
    assert_same_training(folders / f"{stage}_2", folders / f"{stage}_1")


def test_the_clips_of_the_two_are_of_different_sizes_and_numbers_of_objects(folders):
    run = run_of("segmenter", folders / "none")
    halves = [
        StepBatches(Motley(), run.schedule, seed=run.seed, num_classes=3, slots=Processes(Share(rank, 2)).slots(CLIPS))
        for rank in range(2)
    ]
    first, second = ([half[step] for step in range(STEPS)] for half in halves)
    assert any(a.frames.shape != b.frames.shape for a, b in zip(first, second, strict=True))
    counts = [[[len(clip.labels) for clip in batch.targets] for batch in half] for half in (first, second)]
    assert any(sum(a) != sum(b) for a, b in zip(*counts, strict=True))
    assert any(0 in clips for half in counts for clips in half)


def test_only_one_of_them_writes(folders):
    for stage in STAGES:
        assert {path.name for path in (folders / f"{stage}_2").iterdir()} == {LATEST, LOG, MODEL}


def test_two_processes_go_on_with_what_one_began(folders):
    assert_same_training(folders / "begun_by_1", folders / "segmenter_1")


def test_a_stop_in_one_process_ends_all_after_the_same_step(folders):
    assert said_of(folders, "left") == ["steps [1, 2]"] * 2
    assert [line["step"] for line in read_log(folders / "left" / LOG)] == [1, 2]
    assert read_training(folders / "left" / LATEST)["done"] == 2


def test_two_stopped_processes_that_go_on_end_like_two_that_were_not(folders):
    assert sorted(said_of(folders, "stopped")) == ["steps [1, 2]"] * 2 + ["steps [3, 4, 5]"] * 2
    assert_identical(read_training(folders / "stopped" / LATEST), read_training(folders / "segmenter_2" / LATEST))


def test_one_process_goes_on_with_what_two_began(folders, tmp_path):
    folder = shutil.copytree(folders / "left", tmp_path / "left")
    follow(run_of("segmenter", folder))
    assert_same_training(folder, folders / "segmenter_1")


def test_a_step_that_breaks_in_one_process_is_kept_whole_and_told_by_all(folders):
    first, second = said_of(folders, "failed")
    assert first == second
    assert "the loss of step 2 is not finite" in first
    assert "clips (step, slot) (1, 0), (1, 1), (1, 2), (1, 3)" in first
    kept, run = read_failed(folders / "failed" / FAILED_STEP), run_of("segmenter", folders / "none")
    whole = StepBatches(Motley(), run.schedule, seed=run.seed, num_classes=3)[1]
    assert kept.batch.frames.equal(whole.frames)
    for clip, expected in zip(kept.batch.targets, whole.targets, strict=True):
        assert_identical(vars(clip), vars(expected))


# --- without other processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_clip_of_a_step_belongs_to_one_process(count):
    slots = [Processes(Share(rank, count)).slots(4) for rank in range(count)]
    assert sorted(slot for own in slots for slot in own) == [0, 1, 2, 3]


def test_clips_that_cannot_be_shared_equally_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    processes = Processes(Share(0, 3))
    monkeypatch.setattr("cavis.training.loop.join", lambda device: processes)
    run = run_of("segmenter", tmp_path / "out")
    with pytest.raises(ValueError, match="expected a number of clips a step that 3 processes share equally, got 4"):
        next(train(run, model_of(), Motley()))
    assert not run.folder.exists()


def test_a_device_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(PartialState, "_shared_state", {})
    with pytest.raises(ValueError, match="expected the devices cpu or cuda for 2 processes, got mps"):
        next(train(nano_run(tmp_path, device="mps"), nano_model(), Squares()))


class Apart(Processes):
    """Two processes that see different folders."""

    def largest(self, *values):
        return [value + index for index, value in enumerate(values)]


def test_checkpoints_of_different_steps_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cavis.training.loop.join", lambda device: Apart())
    with pytest.raises(CheckpointError, match="one folder for all processes, got checkpoints of -1 and of 0 steps"):
        next(train(nano_run(tmp_path), nano_model(), Squares()))


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_a_shared_norm_is_a_batch_norm_in_its_outputs_gradients_and_statistics(batch, seed):
    generator = torch.Generator().manual_seed(seed)
    norm = torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(3, generator=generator))
    shared = SharedBatchNorm(torch.nn.BatchNorm2d(3), alone, 1)
    shared.load_state_dict(norm.state_dict())
    x = (5 * torch.randn(batch, 3, 4, 5, generator=generator) + 7).requires_grad_()
    weights = torch.randn(batch, 3, 4, 5, generator=generator)
    for one in (norm, shared):
        one.train()
        (one(x) * weights).sum().backward()
        one.input_gradient, x.grad = x.grad, None
    torch.testing.assert_close(shared(x), norm(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shared.input_gradient, norm.input_gradient, atol=1e-4, rtol=1e-3)
    for own, other in zip(shared.parameters(), norm.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(shared.state_dict(), norm.state_dict())
    torch.testing.assert_close(shared.eval()(x), norm.eval()(x))


def test_norms_are_shared_without_new_names_or_weights():
    model = nano_model(stage="segmenter")
    before = dict(model.named_parameters())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    share_norms(model.segmenter, alone, 2)
    assert sum(isinstance(module, SharedBatchNorm) for module in model.modules()) > 5
    assert not any(type(module) is torch.nn.BatchNorm2d for module in model.modules())
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert_identical(dict(model.state_dict()), state)


class Counter:
    """A total that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, part):
        self.asked.append(tuple(part.shape))
        return part


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_its_clips_hold_a_process_asks_for_the_same_totals(stage):
    asked = []
    for clips in ([squares(0), hide(squares(1), (0, 1))], [squares(objects=1)] * 2, [empty(squares())] * 2):
        total = Counter()
        STAGES[stage](model_of(), preset(), total).terms(batch_of(*clips), 0.0, point_draws(0, 0, range(2)))
        asked.append(total.asked)
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) >= 2


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_is_the_sum_of_the_shares_of_its_clips(stage):
    clips = [squares(0), empty(squares(1)), hide(squares(2), (0, 1)), squares(3, objects=2)]

    def terms(chosen, total):
        model = model_of()
        learning = STAGES[stage](model, preset(), total)
        learning.learning.eval()  # a batch norm that learns would see fewer clips
        slots = point_draws(0, 0, chosen)
        return learning.terms(batch_of(*(clips[slot] for slot in chosen)), 0.0, slots)

    values = []

    def noting(part):
        values.append(part)
        return part

    whole = terms(range(4), noting)
    shares = []
    for chosen in ((0, 2), (1, 3)):
        known = iter(values)
        shares.append(terms(chosen, lambda part, known=known: next(known)))
    for name, value in whole.items():
        torch.testing.assert_close(shares[0][name] + shares[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_points_of_a_clip_do_not_depend_on_its_company():
    alone_, among = point_draws(3, 7, [2])[0], point_draws(3, 7, range(4))[2]
    assert torch.rand(5, generator=alone_).equal(torch.rand(5, generator=among))
    streams = [point_draws(seed, done, [slot])[0] for seed in range(3) for done in range(3) for slot in range(3)]
    assert len({stream.initial_seed() for stream in streams}) == 27


def test_a_source_of_points_is_asked_for_all_masks_of_its_clips():
    draw = of_clips((None, torch.Generator()), (2, 1))
    assert draw(3, 4).shape == (3, 4, 2)
    with pytest.raises(ValueError, match="expected to draw for 3 masks of all clips at once, got 5"):
        draw(5, 4)
