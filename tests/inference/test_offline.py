import tempfile
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import images, nano_config, nano_model, nano_preset
from torch.nn import LayerNorm

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.inference.offline import OfflinePredictor, best_of_both
from cavis.inference.online import OnlinePredictor
from cavis.inference.panoptic import panoptic
from cavis.inference.postprocess import Sizes
from cavis.inference.predictor import Cancelled
from cavis.inference.second_pass import FirstPass, instances
from cavis.inference.semantic import semantic
from cavis.inference.spill import SpillError
from cavis.model.layers import Attention, Heads


def ready(stage="refiner", **inference):
    """An untrained model whose slots differ: attention, which blends them as long as nothing is learned, is damped.

    Its norms are not alike either, or a feature before a norm would be the same as after it.
    """
    about = ModelFile("nano", "nano", replace(nano_config(), stuff=1), stage, "")
    model = nano_model(stage=stage)
    for part in model.modules():
        if isinstance(part, Attention):
            part.out.weight.data *= 0.2
        if isinstance(part, LayerNorm):
            part.weight.data.uniform_(0.5, 1.5)
        if isinstance(part, Heads):
            part.class_head.weight.data *= 3
    return ReadyModel(model, about, replace(nano_preset().inference, **inference), "")


def video(frames=5, height=64, width=96, seed=0):
    return list(images(1, frames, height, width, seed)[0].permute(0, 2, 3, 1).numpy())


def softmax(logits):
    return logits.softmax(dim=-1).numpy()


class InMemory:
    """The masks of a clip that was computed in one piece."""

    def __init__(self, clip, features):
        self.frames = len(clip.mask_logits[0])
        self.masks = lambda t, slots: clip.mask_logits[0, t, slots].numpy()
        self.features = lambda t, slots: features[t, slots].numpy()


@torch.no_grad()
def whole_clip(model, frames):
    """The first pass with nothing cut into windows, kept on disk or put off."""
    network = model.model
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None]
    segmented = network.segmenter(pictures)
    tracks, _ = network.track(segmented)
    refined = network.refiner.predict(tracks, segmented)
    best = np.maximum(softmax(refined.class_logits[0, 0]), softmax(tracks.class_logits[0].mean(dim=0)))
    best[:, -1] = softmax(refined.class_logits[0, 0])[:, -1]
    features = torch.cat((tracks.core[0], tracks.context_aware[0]), dim=-1)
    sizes = Sizes(frames[0].shape[:2], frames[0].shape[:2])
    times = np.arange(len(frames), dtype=float)
    return FirstPass(model.about, best, InMemory(refined, features), sizes, times, frames[-1])


def masks_of(track, size=(64, 96)):
    return np.stack([rle.decode(mask) if mask else np.zeros(size, bool) for mask in track.masks])


def assert_same_tracks(left, right):
    assert [track.id for track in left] == [track.id for track in right]
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one.class_scores, other.class_scores, atol=1e-5)
        np.testing.assert_allclose(one.core, other.core, atol=1e-3)
        np.testing.assert_allclose(one.context_aware, other.context_aware, atol=1e-3)
        assert (masks_of(one) != masks_of(other)).mean() < 1e-4
    assert any(masks_of(track).any() for track in left)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_instances_equal_those_of_the_clip_in_one_piece(frames, window):
    model = ready()
    streamed = OfflinePredictor(model, window=window).run(video(frames))
    together = instances(whole_clip(model, video(frames)), model.inference, range(frames))
    assert_same_tracks(streamed.tracks, together.tracks)
    assert len(streamed) == len(together) == frames


def test_segments_equal_those_of_the_clip_in_one_piece():
    model = ready(task="panoptic", min_score=0.1, min_visible_share=0.05)
    streamed = OfflinePredictor(model, window=2).run_panoptic(video())
    together = panoptic(whole_clip(model, video()), 0.1, 0.05, range(5))
    assert len(streamed.segments) > 1
    assert [(s.slot, s.isthing) for s in streamed.segments] == [(s.slot, s.isthing) for s in together.segments]
    for left, right in zip(streamed.id_maps(), together.id_maps(), strict=True):
        assert (left != right).mean() < 1e-4


def test_classes_equal_those_of_the_clip_in_one_piece():
    model = ready(task="semantic")
    streamed = OfflinePredictor(model, window=2).run_semantic(video())
    together = semantic(whole_clip(model, video()), range(5))
    for left, right in zip(streamed.class_maps(), together.class_maps(), strict=True):
        assert (left != right).mean() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(50, 80), (120, 130)])
def test_frames_of_any_size_get_masks_of_their_size(height, width):
    result = OfflinePredictor(ready()).run(video(3, height, width))
    assert (result.height, result.width) == (height, width)
    assert any(masks_of(track, (height, width)).any() for track in result.tracks)


def test_masks_are_asked_for_in_any_order_and_number():
    model = ready()
    expected = whole_clip(model, video()).kept
    with OfflinePredictor(model).first_pass(video()) as first:
        assert first.kept.frames == 5
        for t, slots in ((3, [1]), (0, [7, 2, 0]), (3, []), (4, list(range(8))), (0, [7])):
            np.testing.assert_allclose(first.kept.masks(t, slots), expected.masks(t, slots), atol=1e-4)
            np.testing.assert_allclose(first.kept.features(t, slots), expected.features(t, slots), atol=1e-3)


def test_a_class_counts_as_much_as_the_surer_of_tracker_and_refiner_says():
    rng = np.random.default_rng(0)
    refined, tracked = rng.dirichlet(np.ones(4), (2, 6)).astype(np.float32)
    best = best_of_both(refined, tracked)
    for query in range(6):
        assert best[query, 3] == refined[query, 3]
        for label in range(3):
            assert best[query, label] == max(refined[query, label], tracked[query, label])


def test_each_frame_is_known_to_the_refiner_before_any_mask_is_made():
    """The first frame's masks change with the last frame; online they do not."""
    model = ready(top_k=24)
    frames, other = video(), [*video()[:4], video(seed=3)[4]]
    for predictor, changes in ((OfflinePredictor, True), (OnlinePredictor, False)):
        with predictor(model).first_pass(frames) as first, predictor(model).first_pass(other) as second:
            left, right = (each.kept.masks(0, list(range(8))) for each in (first, second))
            assert bool(np.abs(left - right).max() > 1e-3) is changes


def test_live_results_are_the_trackers():
    model = ready()
    offline, online = OfflinePredictor(model), OnlinePredictor(model)
    for frame in video(2):
        left, right = offline.step(frame), online.step(frame)
        assert [track.masks for track in left.tracks] == [track.masks for track in right.tracks]


def test_progress_is_told_frame_by_frame():
    seen = []

    def watch(progress):
        seen.append((progress.stage, progress.done, progress.total, len(progress.live().tracks) > 0))

    class Source(list):
        timestamps = np.array([0.0, 0.1, 0.25, 0.4])
        notes = ("One frame was lost.",)

    result = OfflinePredictor(ready(), window=3).run(Source(video(4)), watch=watch)
    assert seen == [(stage, t, 4, stage == "track") for stage in ("track", "encode") for t in range(1, 5)]
    assert result.timestamps.tolist() == [0.0, 0.1, 0.25, 0.4]
    assert result.notes == ("One frame was lost.",)


@pytest.fixture
def files(monkeypatch, temporary_folder):
    """The temporary files that are opened, in a folder that must be empty at the end."""
    opened, real = [], tempfile.TemporaryFile

    def opening(*args, **kwargs):
        opened.append(real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", opening)
    yield opened
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("stage", ["track", "encode"])
def test_a_run_that_is_stopped_leaves_no_file(files, stage):
    stop, done = threading.Event(), []

    def watch(progress):
        done.append(progress.stage)
        if progress.stage == stage:
            stop.set()

    with pytest.raises(Cancelled):
        OfflinePredictor(ready(), window=2).run(video(6), watch=watch, stop=stop)
    assert 1 <= done.count(stage) <= 2
    assert len(files) == 1
    assert files[0].closed


def test_masks_can_be_had_until_the_end_and_not_after(files):
    with OfflinePredictor(ready()).first_pass(video(2)) as first:
        assert first.kept.masks(1, [0]).shape == (1, 16, 24)
    assert [file.closed for file in files] == [True]
    with pytest.raises(ValueError, match="closed"):
        first.kept.masks(1, [0])


def test_the_disk_budget_is_kept(files, monkeypatch):
    frame = 4 * (32 * 16 * 24 + 8 * (32 + 64))  # mask features, slot features
    monkeypatch.setattr("cavis.inference.spill.DISK_BUDGET", 3 * frame)
    assert len(OfflinePredictor(ready()).run(video(3))) == 3
    with pytest.raises(SpillError, match=r"the mask features of 3 frames fill .* expected a shorter clip"):
        OfflinePredictor(ready()).run(video(4))
    assert [file.closed for file in files] == [True, True]


def test_nothing_of_the_size_of_a_picture_is_kept(monkeypatch):
    """Of each window: not its frames, its mask features or its masks, nor a tensor that shares their memory."""
    model, alive, most = ready(), weakref.WeakSet(), []
    segment, track = model.model.segmenter.forward, model.model.track

    def segmenting(pictures):
        frames = segment(pictures)
        alive.update((pictures, frames.mask_features, frames.mask_logits))
        most.append(len(alive))
        return frames

    def tracking(frames, state):
        tracks, state = track(frames, state)
        alive.add(tracks.mask_logits)
        return tracks, state

    monkeypatch.setattr(model.model.segmenter, "forward", segmenting)
    monkeypatch.setattr(model.model, "track", tracking)
    with OfflinePredictor(model, window=1).first_pass(video(12)) as first:
        assert len(most) == 12
        assert max(most) <= 2 * 4  # this window's, and the last one's
        first.kept.masks(3, [0])


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_a_model_without_a_refiner_is_refused(stage):
    with pytest.raises(ValueError, match=f"expected a model of the refiner stage, got 'nano' of the {stage} stage"):
        OfflinePredictor(ready(stage))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "expected a video with at least one frame, got none"),
        ([np.zeros((64, 96), np.uint8)], r"expected an RGB frame \[H, W, 3\], got shape \(64, 96\)"),
        ([np.zeros((64, 96, 3), np.float32)], "expected RGB uint8 frames of 64 x 96, got float32"),
        (
            [np.zeros((64, 96, 3), np.uint8), np.zeros((96, 64, 3), np.uint8)],
            r"expected RGB uint8 frames of 64 x 96, got uint8 \(96, 64, 3\)",
        ),
    ],
)
def test_what_is_not_a_video_is_refused(files, frames, message):
    with pytest.raises(ValueError, match=message):
        OfflinePredictor(ready()).run(frames)
    assert all(file.closed for file in files)
