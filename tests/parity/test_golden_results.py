"""What comes out: scores, classes, ids and masks of whole videos, as the released code gives them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_sets import cases, golden, golden_model, sets
from referee import Referee, calls_of, links_of
from settled import as_released

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import InferenceConfig
from cavis.inference.offline import OfflinePredictor
from cavis.inference.online import OnlinePredictor
from cavis.inference.panoptic import panoptic
from cavis.inference.postprocess import Sizes
from cavis.inference.second_pass import FirstPass, instances
from cavis.inference.semantic import semantic
from cavis.model import association, tracker
from cavis.presets import get_preset

VIDEOS = sets("out.masks_packbits", "out.panoptic")
UNITS = sets("in.vis.pred_cls")
SCORES = 1e-4
WINDOW = 3
"""Frames that the released code segments together, where a set does not say."""


class Kept:
    """A set's stored masks, as a second pass asks for them."""

    def __init__(self, masks: torch.Tensor) -> None:
        self._masks = masks.numpy()
        self.frames = self._masks.shape[1]

    def masks(self, t, slots):
        return self._masks[slots, t]

    def features(self, t, slots):
        return np.zeros((len(slots), 2), dtype=np.float32)


def first_pass_of(stored, task: str, aux: bool) -> FirstPass:
    """A unit set's inputs; with the auxiliary logits the larger of the two probabilities counts."""
    probabilities = stored[f"in.{task}.pred_cls"].softmax(dim=-1)
    if aux:
        other = stored[f"in.{task}.aux_pred_cls"].softmax(dim=-1)
        probabilities[:, :-1] = torch.maximum(probabilities, other)[:, :-1]
    args = stored.info["args"]
    sizes = Sizes((args["oh"], args["ow"]), tuple(args["img_size"]))
    things = stored.info["n_thing_classes_VIPSeg"]
    classes = probabilities.shape[1] - 1
    about = about_of(classes, stuff=classes - things if task != "vis" else 0)
    masks = Kept(stored["in.pred_masks"])
    return FirstPass(
        about, probabilities.numpy(), masks, sizes, np.arange(masks.frames, dtype=float), np.zeros((1, 1, 3), np.uint8)
    )


def about_of(classes: int, stuff: int) -> ModelFile:
    config = get_preset("ovis_r50").model
    names = tuple(f"class {i}" for i in range(classes))
    return ModelFile("golden", "ovis_r50", replace(config, categories=names, stuff=stuff, hidden=1), "tracker", "")


def assert_same_instances(result, top_k: int, stored, out: str) -> None:
    """Equal slots, labels and scores to 1e-4, and masks but for max(10 pixels, 0.01 %) of the set.

    Of predictions that tie with the last one, which are kept hangs on rounding.
    """
    parts = [stored.tensors[f"{out}.{part}"] for part in ("ids", "labels", "scores")]
    masks = masks_of(stored, out)
    rows = zip(*parts, masks, strict=True)
    theirs = {(int(slot), int(label)): (float(score), mask) for slot, label, score, mask in rows}
    ours = {(track.id, label): (score, track) for track, label, score in result.predictions(top_k)}
    assert len(ours) == len(theirs) == len(masks)
    cut = min(score for score, _ in theirs.values())
    for one, other in ((ours, theirs), (theirs, ours)):
        assert all(one[key][0] <= cut + SCORES for key in one.keys() - other.keys())
    both = ours.keys() & theirs.keys()
    assert both
    assert all(abs(ours[key][0] - theirs[key][0]) <= SCORES for key in both)
    different = sum(int((drawn(ours[key][1], masks.shape[-2:]) != theirs[key][1]).sum()) for key in both)
    assert different <= max(10, 1e-4 * masks.size)


def drawn(track, size: tuple[int, int]) -> np.ndarray:
    """A track's masks as pixels, [T H W]."""
    return np.stack([rle.decode(mask) if mask else np.zeros(size, dtype=bool) for mask in track.masks])


def masks_of(stored, prefix: str) -> np.ndarray:
    shape = stored.tensors[f"{prefix}.masks_shape"] if f"{prefix}.masks_shape" in stored else None
    bits = stored.tensors[f"{prefix}.masks_packbits"]
    if shape is None:
        height, width = stored.info["out"]
        shape = (len(stored.tensors[f"{prefix}.scores"]), stored.info["T"], height, width)
    return np.unpackbits(bits)[: int(np.prod(shape))].reshape(shape).astype(bool)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("name", cases(UNITS))
def test_instances_are_the_same(name, aux):
    stored, out = golden(name), "out.vis_aux" if aux else "out.vis"
    first = first_pass_of(stored, "vis", aux)
    top_k = stored.info["max_num_vis"]
    result = instances(first, InferenceConfig(top_k=top_k), range(first.kept.frames))
    assert_same_instances(result, top_k, stored, out)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("name", cases(UNITS))
def test_panoptic_segments_are_the_same(name, aux):
    stored, out = golden(name), "out.vps_aux" if aux else "out.vps"
    first = first_pass_of(stored, "vps", aux)
    rule = stored.info["object_mask_threshold"], stored.info["overlap_threshold"]
    result = panoptic(first, *rule, range(first.kept.frames))
    assert_same_segments(result, stored, f"{out}.map", f"{out}.segments", f"{out}.ids")


def assert_same_segments(result, stored, map_name: str, segments_name: str, ids_name: str) -> None:
    expected = stored.tensors[map_name]
    different = sum(int((result.id_map(t) != expected[t]).sum()) for t in range(len(expected)))
    assert different <= max(10, 1e-4 * expected.size)
    rows = [[segment.track.id, int(segment.isthing), segment.track.label] for segment in result.segments]
    assert rows == stored.tensors[segments_name].astype(int).tolist()
    assert {segment.slot for segment in result.segments} <= set(stored.tensors[ids_name].tolist())


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("name", cases(UNITS))
def test_class_maps_are_the_same(name, aux):
    stored, out = golden(name), "out.vss_aux" if aux else "out.vss"
    first = first_pass_of(stored, "vss", aux)
    result = semantic(first, range(first.kept.frames))
    expected = stored.tensors[f"{out}.map"]
    different = sum(int((result.class_map(t) != expected[t]).sum()) for t in range(len(expected)))
    assert different <= max(10, 1e-4 * expected.size)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", cases(VIDEOS))
def test_whole_videos_are_the_same(name, folded, monkeypatch):
    """From frames to results, in windows, as a user runs it; the results at the set's own output size."""
    stored, model = golden(name), golden_model(name, folded)
    frames = stored.tensors["frames_u8"]
    height, width = frames.shape[1:3]
    preset = stored.preset
    inference = replace(preset.inference, short_side=min(height, width), max_side=max(height, width))
    ready = ReadyModel(model, ModelFile("golden", preset.name, preset.model, stored.stage, ""), inference, "")
    predictor = OfflinePredictor if stored.stage == "refiner" else OnlinePredictor
    window = int(stored.tensors["window_size"][0]) if "window_size" in stored else WINDOW
    place, calls = (association, links_of) if stored.stage == "segmenter" else (tracker, calls_of)
    monkeypatch.setattr(place, "match", Referee(calls(stored)))
    with as_released(stored, model), predictor(ready, window=window).first_pass(list(frames)) as first:
        first = replace(first, sizes=Sizes(tuple(stored.info["out"]), (height, width)))
        assert_same_probabilities(first, stored)
        if "out.panoptic" in stored:
            rule = inference.min_score, inference.min_visible_share
            result = panoptic(first, *rule, range(first.kept.frames))
            assert_same_segments(result, stored, "out.panoptic", "out.segments", "out.ids")
        else:
            top_k = int(stored.tensors["max_num"][0]) if "max_num" in stored else inference.top_k
            result = instances(first, InferenceConfig(top_k=top_k), range(first.kept.frames))
            assert_same_instances(result, top_k, stored, "out")


def assert_same_probabilities(first: FirstPass, stored) -> None:
    expected = stored["post.video_logits"].softmax(dim=-1)
    if "post.aux_logits" in stored:
        expected[:, :-1] = torch.maximum(expected, stored["post.aux_logits"].softmax(dim=-1))[:, :-1]
    np.testing.assert_allclose(first.probabilities, expected.numpy(), rtol=0, atol=SCORES)
