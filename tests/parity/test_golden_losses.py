"""Training: the loss terms of the released code, its matches, and the lengths of its gradients."""

import json
import math
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from golden_sets import FOLDER, golden, golden_model
from tolerances import assert_numbers

from cavis.checkpoints.official import origin
from cavis.config import Preset
from cavis.losses import criterion
from cavis.records import ClipBatch, Targets
from cavis.training.stages import STAGES

SETS = sorted(file.parent.name for file in FOLDER.glob("*/losses.json"))
NAMES = {
    "loss_ce": "class",
    "loss_mask": "mask",
    "loss_dice": "dice",
    "loss_ctx": "context",
    "loss_ctx_aux": "context_cosine",
    "loss_proto": "prototype",
    "loss_proto_aux": "prototype_cosine",
    "loss_reid": "track",
    "loss_reid_aux": "track_cosine",
}


class Outcome(NamedTuple):
    """One step's numbers."""

    terms: dict[str, float]
    matches: list
    gradients: dict[str, float]
    """By released name."""


@cache
def losses_of(name: str) -> dict:
    return json.loads((FOLDER / name / "losses.json").read_text())


CASES = [(name, case) for name in SETS for case in losses_of(name)["cases"]]


def fixed_points(batch: int, points: int) -> torch.Tensor:
    """The points that the released code was given instead of random ones: the same ones in every list."""
    places = np.arange(points) + 0.5
    pairs = np.stack((places * 0.7548776662466927 % 1, places * 0.5698402909980532 % 1), axis=-1)
    return torch.from_numpy(pairs.astype(np.float32)).expand(batch, -1, -1)


def preset_of(stored) -> Preset:
    """The set's preset, with those of its overrides that only matter in training."""
    preset, overrides = stored.preset, stored.overrides
    reading = replace(preset.model.reading, tracker_contrast=overrides.get("MODEL.TRACKER.USE_CL", False))
    loss = replace(preset.loss, points=overrides["MODEL.MASK_FORMER.TRAIN_NUM_POINTS"])
    return replace(preset, model=replace(preset.model, reading=reading), loss=loss)


def batch_of(stored, case: str) -> ClipBatch:
    """The clips of a case and what is annotated in them; an id of -1 says that the object is not there."""
    count = sum(name.startswith(f"{case}.") and name.endswith(".frames_u8") for name in stored.tensors)
    frames, targets = [], []
    for video in (f"{case}.video{i}" for i in range(count)):
        frames.append(stored[f"{video}.frames_u8"].permute(0, 3, 1, 2))
        shape = tuple(stored.tensors[f"{video}.masks_shape"])
        bits = np.unpackbits(stored.tensors[f"{video}.masks_packbits"])[: int(np.prod(shape))]
        masks, ids = torch.from_numpy(bits.reshape(shape).astype(bool)), stored[f"{video}.ids"]
        labels, present = stored[f"{video}.classes"], ids != -1
        assert not masks[~present].any()
        targets.append(Targets(labels=labels, ids=ids.amax(dim=1), masks=masks, present=present))
    return ClipBatch(torch.stack(frames), tuple(targets))


class Recorder:
    """A matching that keeps what it found, as the released matcher says it: pairs in each frame of each clip."""

    def __init__(self, match) -> None:
        self.match, self.calls = match, []

    def __call__(self, *args, **options):
        found = self.match(*args, **options)
        self.calls.append([pairs(frame) for clip in found for frame in clip])
        return found


def pairs(query_of: torch.Tensor) -> set[tuple[int, int]]:
    """Which query answers for which object; here all objects have one."""
    assert (query_of >= 0).all()
    return {(query, n) for n, query in enumerate(query_of.tolist())}


@cache
def outcome(name: str, case: str) -> Outcome:
    """One step of the stage in training, at the beginning of its first half, and its gradients."""
    stored, model = golden(name), golden_model(name)
    stage = STAGES[stored.stage](model, preset_of(stored))
    model.zero_grad(set_to_none=True)
    with pytest.MonkeyPatch.context() as patch:
        recorders = {kind: Recorder(getattr(criterion, kind)) for kind in ("match_frames", "match_first_appearance")}
        for kind, recorder in recorders.items():
            patch.setattr(criterion, kind, recorder)
        terms = stage.terms(batch_of(stored, case), 0.0, fixed_points)
    torch.stack(list(terms.values())).sum().backward()
    squares: dict[str, float] = {}
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            key = origin(path, "released").key
            squares[key] = squares.get(key, 0.0) + parameter.grad.double().square().sum().item()
    calls = [call for recorder in recorders.values() for call in recorder.calls]
    lengths = {key: math.sqrt(value) for key, value in squares.items()}
    return Outcome({key: value.item() for key, value in terms.items()}, calls, lengths)


def our_name(term: str) -> str:
    """``loss_ce_3`` -> ``class_3``."""
    stem, _, layer = term.rpartition("_")
    return f"{NAMES[stem]}_{layer}" if layer.isdigit() else NAMES[term]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_loss_term_is_the_same(name, case):
    stored = losses_of(name)["cases"][case]
    expected = {our_name(term): value for term, value in stored["losses_weighted"].items()}
    found = outcome(name, case).terms
    assert_numbers(found | {"total": sum(found.values())}, expected | {"total": stored["total"]}, relative=1e-4)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_same_queries_answer_for_the_same_objects(name, case):
    calls = losses_of(name)["cases"][case]["matcher_calls"]
    expected = [[set(zip(*sides, strict=True)) for sides in call] for call in calls]
    assert outcome(name, case).matches == expected


@pytest.mark.parametrize(("name", "case"), CASES)
def test_gradients_are_as_long_and_reach_the_same_parameters(name, case):
    expected = losses_of(name)["cases"][case]["grad_l2_norm_of_total"]
    found = outcome(name, case).gradients
    learning = {key: value for key, value in expected.items() if value is not None}
    assert len(learning) > 3
    assert found.keys() & expected.keys() == learning.keys()
    assert_numbers({key: found[key] for key in learning}, learning, relative=1e-2)
