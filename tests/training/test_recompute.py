"""Activations computed again: the same training, in less memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import Squares, batch_of, consecutive, nano_model, nano_preset, nano_run
from test_loop import assert_identical, finish
from torch.profiler import ProfilerActivity, profile

from cavis.config import Swin, VitAdapter
from cavis.model import build_model
from cavis.model.backbones.vit_adapter import SpatialPrior
from cavis.training.recompute import recompute_activations
from cavis.training.shared_norm import share_norms
from cavis.training.stages import SegmenterStage

BACKBONES = {
    "resnet": None,
    "swin": Swin(width=8, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), window=4, drop_path=0.5),
    "vit_adapter": VitAdapter(width=16, depth=4, heads=2, adapter_heads=2),
}


def stage_of(backbone, *, recompute):
    preset = nano_preset()
    if backbone is not None:
        preset = replace(preset, model=replace(preset.model, backbone=backbone))
    torch.manual_seed(0)
    stage = SegmenterStage(build_model(preset.model, "segmenter"), preset)
    if recompute:
        recompute_activations(stage.model)
    return stage


def learned(stage):
    """Gradients, statistics and the loss after one step's forward and backward pass."""
    batch = batch_of(Squares().draw(np.random.default_rng(0), consecutive(2)))
    torch.manual_seed(1)  # for what drops whole paths at random
    loss = sum(stage.terms(batch, 0.0, torch.Generator().manual_seed(0)).values())
    loss.backward()
    gradients = {name: p.grad for name, p in stage.model.named_parameters() if p.grad is not None}
    return gradients, stage.model.state_dict(), loss.detach()


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_and_statistics_are_those_of_kept_activations(name):
    kept, again = (learned(stage_of(BACKBONES[name], recompute=recompute)) for recompute in (False, True))
    assert len(kept[0]) > 50
    for gradient in (kept[0], again[0]):
        assert any(value.any() for key, value in gradient.items() if "backbone" in key)
    assert_identical(dict(again[0]), dict(kept[0]))
    assert_identical(dict(again[1]), dict(kept[1]))
    assert torch.equal(again[2], kept[2])


def peak_bytes(work) -> int:
    """The most that torch held at a time while it worked, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    changes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum(changes).max())


def test_a_step_needs_less_than_two_thirds_of_the_memory():
    kept, again = (peak_bytes(lambda r=r: learned(stage_of(None, recompute=r))) for r in (False, True))
    assert 0 < again < 2 / 3 * kept


def test_a_run_ends_with_the_same_weights_and_can_change_its_mind_when_it_goes_on(tmp_path):
    kept = nano_run(tmp_path / "kept", steps=3, workers=0)
    again = replace(kept, folder=tmp_path / "again", recompute=True)
    begun = iter_steps(again, 1)
    assert begun == [1]
    assert_identical(finish(replace(again, recompute=False), seed=9), finish(kept))


def iter_steps(run, steps):
    from cavis.training.loop import train

    begun = train(run, nano_model(), Squares())
    done = [next(begun).step for _ in range(steps)]
    begun.close()
    return done


def test_norms_that_processes_share_are_computed_again():
    """As of two processes with the same clips: what is summed over both is twice what one has."""

    def learned_by_two(recompute):
        torch.manual_seed(0)
        prior = SpatialPrior(16).train()
        if recompute:
            recompute_activations(prior)
        share_norms(prior, lambda part: 2 * part, 2)
        sum(level.square().sum() for level in prior(torch.randn(2, 3, 64, 64))).backward()
        return prior.state_dict(), {name: value.grad for name, value in prior.named_parameters()}

    kept, again = learned_by_two(recompute=False), learned_by_two(recompute=True)
    assert any("num_batches_tracked" in name for name in kept[0])
    for one, other in zip(kept, again, strict=True):
        assert_identical(one, other)
