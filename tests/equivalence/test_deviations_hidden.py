"""Rows of docs/deviations.md about objects that are hidden: what is learned of them, and what is shown."""

from dataclasses import replace

import numpy as np
import torch
from nano import hide, images, nano_config, nano_model, nano_preset, random_frames, squares

from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import OURS
from cavis.inference.online import OnlinePredictor, RunningMean
from cavis.inference.postprocess import network_size, to_network
from cavis.losses.criterion import TrackerCriterion
from cavis.model.association import FrameLinker


def test_hidden_objects_are_learned_as_no_object_and_have_no_mask_if_left_out():
    whole = squares(0)
    absent = hide(whole, (0, 0))
    prediction = FrameLinker()(random_frames(frames=3, queries=8))[0]
    terms = {}
    for hidden in ("counted", "left_out"):
        criterion = TrackerCriterion(nano_preset().loss, replace(OURS, hidden=hidden), 3)
        for name, clip in (("absent", absent), ("seen", whole)):
            terms[hidden, name] = criterion(prediction, (clip.targets,), torch.Generator().manual_seed(0))
    for name in ("class", "mask", "dice"):
        assert not torch.equal(terms["counted", "absent"][name], terms["left_out", "absent"][name])
        assert torch.equal(terms["counted", "seen"][name], terms["left_out", "seen"][name])
    logits = torch.zeros(4, 2, 4)
    logits[:, 0, 1] = torch.tensor([3.0, 3.0, 0.0, 0.0])  # one track sees its object in half of the frames
    logits[2:, 0, -1] = 9.0
    logits[:, 1, -1] = 9.0  # the other one never does
    mean, seen = (RunningMean(seen_above=above) for above in (None, 0.5))
    for window in logits.split(3):
        mean.add(window)
        seen.add(window)
    np.testing.assert_allclose(seen.probabilities()[0], logits[:2, 0].mean(dim=0).softmax(dim=-1), atol=1e-6)
    np.testing.assert_allclose(mean.probabilities()[0], logits[:, 0].mean(dim=0).softmax(dim=-1), atol=1e-6)
    np.testing.assert_allclose(seen.probabilities()[1], mean.probabilities()[1])
    frames = images(1, 3)[0].permute(0, 2, 3, 1).to(torch.uint8).numpy()
    for hidden, visible in (("counted", True), ("left_out", False)):
        model = nano_model()
        model.tracker.heads.class_head.bias.data[-1] = 50.0  # nothing is seen anywhere
        about = ModelFile("nano", "nano", nano_config(hidden=hidden), "tracker", "")
        found = OnlinePredictor(ReadyModel(model, about, nano_preset().inference, "")).run(frames)
        assert any(track.visible.any() for track in found.tracks) is visible


@torch.no_grad()
def test_a_track_has_a_mask_where_it_sees_an_object_with_the_probability_that_is_asked_for():
    model, about = nano_model().eval(), ModelFile("nano", "nano", nano_config(hidden="left_out"), "tracker", "")
    inference = nano_preset().inference
    frames = images(1, 3)[0].permute(0, 2, 3, 1).to(torch.uint8).numpy()
    size = network_size(*frames.shape[1:3], inference.short_side, inference.max_side)
    network = torch.stack([to_network(frame, size) for frame in frames])[None]
    sure = 1 - model.track(model.segmenter(network))[0].class_logits[0].softmax(dim=-1)[..., -1]

    def shown(min_seen):
        rules = replace(inference, min_seen=min_seen, top_k=1000)
        found = OnlinePredictor(ReadyModel(model, about, rules, "")).run(frames)
        return {track.id: track.visible for track in found.tracks}

    everywhere = shown(0.0)
    assert len(everywhere) == sure.shape[1]
    for share in (0.25, 0.75, 1.0):
        min_seen = sure.quantile(share).item()
        visible = shown(min_seen)
        for slot, before in everywhere.items():
            np.testing.assert_array_equal(visible[slot], before & (sure[:, slot] > min_seen).numpy())
        assert sum(map(sum, visible.values())) < sum(map(sum, everywhere.values()))
