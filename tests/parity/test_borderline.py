"""The rule for logits next to zero: rounding passes, errors do not."""

from collections.abc import Callable
from copy import deepcopy

import borderline
import pytest
import torch
from borderline import NEAR, Cuts, Place, look, settle
from golden_sets import Golden, bundled
from settled import agreement, features
from torch import nn

from cavis.model import deformable_attention, query_decoder
from cavis.model.pixel_decoder import PixelFeatures
from cavis.model.segmenter import Segmenter


@pytest.fixture(scope="module")
def known():
    """A small set of ours: the rule is looked at here, not the set."""
    stored = bundled("offline_r50")
    segmenter = stored.model().segmenter
    return stored, segmenter, features(stored, segmenter)


def agree(stored: Golden, segmenter: Segmenter, seen: PixelFeatures) -> list[bool]:
    """For every frame whether it is what was stored, with cuts on their released sides."""
    agrees = agreement(stored)
    sides = settle(segmenter, seen, agrees)
    found = []
    for t in range(len(seen.mask_features)):
        frame = PixelFeatures(tuple(level[t : t + 1] for level in seen.levels), seen.mask_features[t : t + 1])
        with Cuts(segmenter, sides, first=t):
            found.append(agrees(look(segmenter, frame), t))
    return found


def test_the_right_model_agrees_in_every_frame(known):
    assert all(agree(*known))


def a_cut_that_matters(segmenter: Segmenter, frame: PixelFeatures) -> tuple[Place, int]:
    """A place near zero whose side changes what follows by more than the tolerance, and its side."""
    with Cuts(segmenter, {}) as cuts:
        plain = look(segmenter, frame)
    for place in sorted(cuts.met):
        with Cuts(segmenter, {place: -cuts.met[place]}):
            other = look(segmenter, frame)
        if (other.masks - plain.masks).abs().max() > 1e-2:
            return place, cuts.met[place]
    raise AssertionError(f"no cut within {borderline.NEAR} of zero matters")


def test_one_pixel_on_the_other_side_is_found_and_nothing_else_is_needed(known, monkeypatch):
    """What another machine's rounding would do: one logit falls on the other side, and all that follows differs."""
    _, segmenter, seen = known
    frame = PixelFeatures(tuple(level[:1] for level in seen.levels), seen.mask_features[:1])
    monkeypatch.setattr(borderline, "NEAR", 0.02)  # as if rounding were so large that this frame has such a logit
    place, side = a_cut_that_matters(segmenter, frame)
    with Cuts(segmenter, {place: -side}):
        elsewhere = look(segmenter, frame)

    def agrees(found, t):
        return bool((found.masks - elsewhere.masks).abs().max() < 1e-3)

    assert not agrees(look(segmenter, frame), 0)
    monkeypatch.setattr(borderline, "LOOKS", 400)
    assert settle(segmenter, frame, agrees)[place] == -side
    monkeypatch.setattr(borderline, "NEAR", 0.0)  # the rule switched off
    with Cuts(segmenter, settle(segmenter, frame, agrees)):
        assert not agrees(look(segmenter, frame), 0)


def epsilon(segmenter: Segmenter) -> None:
    for module in segmenter.query_decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3


def threshold(segmenter: Segmenter) -> None:
    """Queries look where their masks' probability is 0.502, instead of 0.5."""
    heads = segmenter.query_decoder.heads

    def blocked(x, level):
        low = heads.masks(heads.norm(x), level.mask_features).flatten(2).sigmoid() < 0.502
        return low & ~low.all(dim=-1, keepdim=True)

    segmenter.query_decoder._blocked = blocked


def sign(segmenter: Segmenter) -> None:
    weight = segmenter.query_decoder.layers[4].self_attention.attention.query.weight
    weight[0] = -weight[0]


def position(segmenter: Segmenter) -> None:
    segmenter.query_decoder.query_position.weight[0] *= 1.01


def order(segmenter: Segmenter) -> None:
    """Two levels change places."""
    embedding = segmenter.query_decoder.level_embedding.weight
    embedding.copy_(embedding[[1, 0, 2]].clone())


def filter_size(segmenter: Segmenter) -> None:
    segmenter.context_pooling.filter_size -= 2


def outer_boundary(segmenter: Segmenter) -> None:
    """The Laplacian with the other sign: the boundary lies outside of the mask."""
    segmenter.context_pooling.register_forward_pre_hook(lambda _, inputs: (-inputs[0], *inputs[1:]))


ERRORS: dict[str, Callable[[Segmenter], None]] = {
    make.__name__: make for make in (epsilon, threshold, sign, position, order, filter_size, outer_boundary)
}


@torch.no_grad()
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_what_is_cut_is_not_taken_for_rounding(known, error):
    stored, segmenter, seen = known
    broken = deepcopy(segmenter)
    ERRORS[error](broken)
    assert not all(agree(stored, broken, seen))


@torch.no_grad()
def test_places_without_their_half_cell_are_not_taken_for_rounding(known, monkeypatch):
    """Sampling around corners of cells instead of their centres, by a hundredth of a cell."""
    stored, segmenter, _ = known
    sample = deformable_attention.sample_levels
    monkeypatch.setattr(
        deformable_attention, "sample_levels", lambda value, sizes, at, shares: sample(value, sizes, at + 0.01, shares)
    )
    maps = backbone_maps(stored, segmenter)
    assert not all(agree(stored, segmenter, segmenter.pixel_decoder(maps)))


def backbone_maps(stored: Golden, segmenter: Segmenter) -> tuple[torch.Tensor, ...]:
    if "backbone.res2" in stored:
        return tuple(stored[f"backbone.res{i}"] for i in (2, 3, 4, 5))
    return segmenter.backbone(segmenter.normalise(stored["frames_u8"].permute(0, 3, 1, 2)))


@torch.no_grad()
def test_sine_positions_of_another_scale_are_not_taken_for_rounding(known, monkeypatch):
    stored, segmenter, seen = known
    sine = query_decoder.sine_position
    monkeypatch.setattr(query_decoder, "sine_position", lambda *size, like: sine(*size, like=like) * 0.99)
    assert not all(agree(stored, segmenter, seen))


def test_logits_away_from_zero_stay_where_they_are(known):
    _, segmenter, _ = known
    logits = torch.tensor([[[[2 * NEAR, -2 * NEAR, NEAR / 2, -NEAR / 2]]]])
    sides = {Place(0, 3, index): side for index, side in enumerate((-1, 1, -1, 1))}
    held = Cuts(segmenter, sides).hold(logits, 3)
    assert torch.equal(held, torch.tensor([[[[2 * NEAR, -2 * NEAR, -NEAR / 2, NEAR / 2]]]]))
    assert torch.equal(Cuts(segmenter, {}).hold(logits, 3), logits)
