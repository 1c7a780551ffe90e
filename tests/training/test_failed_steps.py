"""What stops a run by itself says where it came from, and what was written before stays whole."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nano import Squares, nano_model, nano_preset, nano_run
from test_loop import assert_identical, finish

from cavis.checkpoints.files import CheckpointError, read_model_file, read_training, save_training
from cavis.config import Swin
from cavis.model import build_model
from cavis.training.console import describe
from cavis.training.log import StepReport
from cavis.training.loop import LATEST, MODEL, train
from cavis.training.watch import FACTOR, FAILED_STEP, PATIENCE, DivergedError, LossWatch, read_failed, replay


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond a number of bytes, as on a full disk; this process's output neither."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_gives_one_sentence_and_leaves_the_file_before(tmp_path):
    path = tmp_path / LATEST
    save_training(path, {"done": 1})
    with size_limit(20_000), pytest.raises(OSError, match="left as it was"):
        save_training(path, {"done": 2, "weights": torch.zeros(100_000)})
    assert read_training(path) == {"done": 1}
    assert [found.name for found in tmp_path.iterdir()] == [LATEST]


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_a_run_whose_disk_was_full_goes_on_as_if_it_had_not_been(tmp_path, stage):
    run = nano_run(tmp_path / "full", stage, 4, checkpoint_every=1, workers=0)
    begun = train(run, nano_model(), Squares())
    next(begun)
    with size_limit(50_000), pytest.raises(OSError, match="no room to write"):
        next(begun)
    assert read_training(run.folder / LATEST)["done"] == 1
    whole = replace(run, folder=tmp_path / "whole")
    assert_identical(finish(run, seed=9), finish(whole))


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_a_run_killed_while_it_writes_a_checkpoint_can_go_on(tmp_path, stage):
    run = nano_run(tmp_path / "killed", stage, 4, checkpoint_every=2, workers=0)
    tests = Path(__file__).parents[1]
    program = f"""
import sys; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]
import os, signal, torch, nano
torch.set_num_threads({torch.get_num_threads()})
from pathlib import Path
from cavis.training.loop import train
save, calls = torch.save, []
def dying(state, path):
    save(state, path)
    calls.append(0)
    if len(calls) == 2:
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = dying
run = nano.nano_run(Path({str(run.folder)!r}), {stage!r}, 4, checkpoint_every=2, workers=0)
list(train(run, nano.nano_model(), nano.Squares()))
"""
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ)).returncode == -9
    assert list(run.folder.glob(".*.part"))
    assert read_training(run.folder / LATEST)["done"] == 2
    whole = replace(run, folder=tmp_path / "whole")
    assert_identical(finish(run, seed=9), finish(whole))
    assert not list(run.folder.glob(".*.part"))


def test_a_checkpoint_without_a_newer_field_counts_as_its_default(tmp_path):
    run = nano_run(tmp_path, steps=3, workers=0)
    begun = train(run, nano_model(), Squares())
    next(begun)
    begun.close()
    state = read_training(tmp_path / LATEST)
    del state["schedule"]["decay"], state["rules"]["always_present"], state["schedule"]["weight_decay"]
    save_training(tmp_path / LATEST, state)
    changed = replace(run, schedule=replace(run.schedule, decay=0.5))
    with pytest.raises(CheckpointError, match=r"schedule.decay 0.1\); expected schedule.decay 0.5"):
        next(train(changed, nano_model(), Squares()))
    assert finish(run)["done"] == 3


def test_a_failed_step_is_kept_and_fails_again_when_replayed(tmp_path):
    run = nano_run(tmp_path, steps=4, workers=0)
    model = nano_model()
    begun = train(run, model, Squares())
    next(begun)
    model.segmenter.query_decoder.heads.class_head.bias.data[0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"step 2 .* seed 5, clips \(step, slot\) \(1, 0\); .*failed_step.pt"):
        next(begun)
    again = replay(tmp_path / FAILED_STEP, run.preset, nano_model(7))
    kept = read_failed(tmp_path / FAILED_STEP)
    assert kept.step == 2
    for name, value in kept.terms.items():
        assert again[name].item() == pytest.approx(value, nan_ok=True)
    assert not torch.stack(list(again.values())).sum().isfinite()


def test_a_loss_that_runs_away_stops_and_one_that_comes_back_does_not():
    watch = LossWatch(warmup=5, seen=[(step, 1.0) for step in range(1, 100)])
    for step in range(100, 100 + PATIENCE - 1):
        watch.check(step, 2 * FACTOR)
    watch.check(200, 1.0)
    for step in range(201, 200 + PATIENCE):
        watch.check(step, 2 * FACTOR)
    with pytest.raises(DivergedError, match=f"up to step {200 + PATIENCE} "):
        watch.check(200 + PATIENCE, 2 * FACTOR)


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_half_precision_learns_what_full_precision_learns(tmp_path, stage):
    full, half = (nano_run(tmp_path / name, stage, 3, workers=0, precision=name) for name in ("fp32", "bf16"))
    losses = [[report.loss for report in train(run, nano_model(), Squares())] for run in (full, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_fp16_without_cuda_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a CUDA device for precision fp16, got cpu"):
        nano_run(tmp_path, precision="fp16")


def test_the_console_line_has_loss_terms_and_speed():
    terms = {"class": 1.0, "mask": 0.5, "auxiliary": 9.0}
    report = StepReport(step=1, steps=2, loss=10.5, terms=terms, learning_rate=1e-4, gradient_norm=1.0, seconds=2.0)
    assert describe(report, clips_per_step=4).startswith("loss 10.50 (class 1.00 mask 0.50) 2.00 clips/s ")


def test_a_run_that_diverges_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    run = nano_run(tmp_path, steps=6, workers=0, checkpoint_every=3)
    monkeypatch.setattr("cavis.training.watch.PATIENCE", 1)
    monkeypatch.setattr("cavis.training.watch.FACTOR", 0.0)  # whatever follows the warm-up's first step is too much
    with pytest.raises(DivergedError, match="up to step 4 "):
        list(train(run, nano_model(), Squares()))
    assert read_training(tmp_path / LATEST)["done"] == 3
    assert read_model_file(tmp_path / MODEL)[0].training.startswith("segmenter stage, 3 of 6 steps")


def test_what_layers_draw_at_random_is_a_function_of_the_step(tmp_path):
    """Swin drops paths: a run that goes on must drop those that it would have dropped."""
    swin = Swin(width=8, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), window=4, drop_path=0.5)
    preset = nano_preset(3)
    preset = replace(preset, model=replace(preset.model, backbone=swin))
    whole = replace(nano_run(tmp_path / "whole", steps=3, workers=0), preset=preset)
    run = replace(whole, folder=tmp_path / "stopped")

    def begin(run):
        torch.manual_seed(0)
        return train(run, build_model(preset.model, "segmenter"), Squares())

    begun = begin(run)
    next(begun)
    begun.close()
    torch.rand(7)
    for each in (run, whole):
        list(begin(each))
    assert_identical(read_training(run.folder / LATEST), read_training(whole.folder / LATEST))


def test_a_run_of_another_precision_is_refused_and_older_checkpoints_count_as_the_same(tmp_path):
    run = nano_run(tmp_path, steps=2, workers=0)
    begun = train(run, nano_model(), Squares())
    next(begun)
    begun.close()
    with pytest.raises(CheckpointError, match=r"precision 'float32'.*expected precision 'bfloat16'"):
        next(train(replace(run, precision="bf16"), nano_model(), Squares()))
    state = read_training(tmp_path / LATEST)
    del state["precision"]
    save_training(tmp_path / LATEST, state)
    assert finish(run)["done"] == 2
