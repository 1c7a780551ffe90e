import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import CATEGORIES, images, nano_config, nano_model, nano_preset

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.inference.offline import OfflinePredictor
from cavis.inference.online import Cancelled, OnlinePredictor, windows
from cavis.inference.postprocess import best_slots


def ready(stage="tracker", hidden="counted", **inference):
    about = ModelFile("nano", "nano", nano_config(hidden=hidden), stage, "")
    return ReadyModel(nano_model(stage=stage), about, replace(nano_preset().inference, **inference), "")


def video(frames=5, height=64, width=96):
    return list(images(1, frames, height, width)[0].permute(0, 2, 3, 1).numpy())


def masks_of(track, height=64, width=96):
    """All frames of a track, as one array."""
    return np.stack([rle.decode(m) if m else np.zeros((height, width), bool) for m in track.masks])


def assert_same_masks(left, right):
    """Equal but for a few pixels on the edge, whose logits round the other way in half precision."""
    assert (left != right).mean() < 2e-3
    assert left.any()


@pytest.mark.parametrize("stage", ["segmenter", "tracker"])
def test_results_do_not_depend_on_the_window(stage):
    model = ready(stage)
    results = [OnlinePredictor(model, window=window).run(video()) for window in (5, 1, 2, 3)]
    whole = results[0]
    for result in results[1:]:
        assert [track.id for track in result.tracks] == [track.id for track in whole.tracks]
        for track, other in zip(result.tracks, whole.tracks, strict=True):
            np.testing.assert_allclose(track.class_scores, other.class_scores, atol=1e-5)
            np.testing.assert_allclose(track.core, other.core, atol=1e-3)
            np.testing.assert_allclose(track.context_aware, other.context_aware, atol=1e-3)
            assert_same_masks(masks_of(track), masks_of(other))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 80), (120, 130)])
@pytest.mark.parametrize(("score", "top_k"), [("class", 24), ("class_and_mask", 24), ("class_and_mask", 3)])
def test_live_and_exact_results_have_the_same_masks_and_features(height, width, score, top_k):
    model = ready(score=score)
    frames = video(4, height, width)
    exact = OnlinePredictor(model, top_k=top_k).run(frames)
    live = OnlinePredictor(model, top_k=24)  # all queries and classes
    for t, frame in enumerate(frames):
        now = live.step(frame)
        assert len(now) == 1
        by_id = {track.id: track for track in now.tracks}
        for track in exact.tracks:
            found = masks_of(by_id[track.id], height, width)[0]
            assert (found != masks_of(track, height, width)[t]).mean() < 2e-3
            for name in ("core", "context_aware"):
                left, right = getattr(by_id[track.id], name)[0], getattr(track, name)[t]
                np.testing.assert_allclose(left, right, atol=1e-3)
    for track in exact.tracks:  # after the last frame the scores so far are the scores
        np.testing.assert_allclose(by_id[track.id].class_scores, track.class_scores, atol=1e-3)
    some = OnlinePredictor(model, top_k=top_k)
    last = [some.step(frame) for frame in frames][-1]
    assert [track.id for track in last.tracks] == [track.id for track in exact.tracks]


@torch.no_grad()
@pytest.mark.parametrize("score", ["class", "class_and_mask"])
def test_live_and_exact_results_show_the_same_tracks_by_the_same_scores(score):
    """Whatever is left out where it is hidden, doubted for it, or dropped for a better track."""
    model = nano_model()
    frames = model.segmenter(torch.from_numpy(np.stack(video())).permute(0, 3, 1, 2)[None])
    sure = 1 - model.track(frames)[0].class_logits.softmax(dim=-1)[..., -1]
    numbers = []
    for max_overlap in (1.0, 0.8, 0.4, 0.1):
        rules = {"score": score, "doubt": 3, "min_seen": sure.median().item(), "max_overlap": max_overlap}
        left_out = ready(hidden="left_out", **rules)
        exact = OnlinePredictor(left_out, top_k=24).run(video())
        live = OnlinePredictor(left_out, top_k=24)
        last = [live.step(frame) for frame in video()][-1]
        assert [track.id for track in last.tracks] == [track.id for track in exact.tracks]
        for now, track in zip(last.tracks, exact.tracks, strict=True):
            np.testing.assert_allclose(now.class_scores, track.class_scores, atol=1e-3)
        assert any(0 < track.visible.sum() < len(video()) for track in exact.tracks)
        numbers.append(len(exact.tracks))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1] > 0


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 80)])  # the second is padded to 64 x 96
@pytest.mark.parametrize("stage", ["segmenter", "tracker", "refiner"])
def test_the_score_of_class_and_mask_is_the_class_probability_times_the_mean_probability_inside(stage, height, width):
    """However the pixels are spread over the frames: a frame with a large mask counts for more."""
    predictor = OfflinePredictor if stage == "refiner" else OnlinePredictor
    frames = video(5, height, width)
    classes, products = (predictor(ready(stage, score=score), top_k=24) for score in ("class", "class_and_mask"))
    with classes.first_pass(frames) as first:
        rows, columns = -(-first.sizes.network[0] // 4), -(-first.sizes.network[1] // 4)
        logits = np.stack([first.kept.masks(t, list(range(8))) for t in range(5)])[..., :rows, :columns]
    found = {track.id: track for track in products.run(frames).tracks}
    assert found
    for track in classes.run(frames).tracks:
        inside = logits[:, track.id] > 0
        if not inside.any():
            assert track.id not in found
            continue
        mean = (1 / (1 + np.exp(-logits[:, track.id][inside]))).mean()
        np.testing.assert_allclose(found[track.id].class_scores, track.class_scores * mean, atol=1e-5)
        assert found[track.id].masks == track.masks


def test_a_track_without_a_mask_in_any_frame_is_none_if_masks_count():
    for score, tracks in (("class", 8), ("class_and_mask", 0)):
        model = ready(score=score)
        with torch.no_grad():
            for parameter in model.model.tracker.heads.mask_head.parameters():
                parameter.zero_()  # mask logits of every slot are 0, and no pixel is more likely in than out
        predictor = OnlinePredictor(model, top_k=24)
        assert len(predictor.run(video()).tracks) == len(predictor.step(video()[0]).tracks) == tracks


def test_a_run_leaves_no_mark_on_the_next():
    predictor = OnlinePredictor(ready())
    first = predictor.run(video())
    predictor.step(video()[0])
    predictor.run(list(images(1, 3, seed=8)[0].permute(0, 2, 3, 1).numpy()))
    again = predictor.run(video())
    for left, right in zip(first.tracks, again.tracks, strict=True):
        assert left.masks == right.masks
        np.testing.assert_array_equal(left.class_scores, right.class_scores)


def test_reset_starts_a_new_video():
    predictor = OnlinePredictor(ready())
    first = predictor.step(video()[0])
    predictor.step(video()[1])
    assert predictor.step(video()[0], timestamp=4.5).timestamps.tolist() == [4.5]
    predictor.reset()
    again = predictor.step(video()[0])
    assert again.timestamps.tolist() == [0]
    for left, right in zip(first.tracks, again.tracks, strict=True):
        assert (left.id, left.masks) == (right.id, right.masks)


def test_frames_are_not_kept():
    alive, most = weakref.WeakSet(), []

    class Frame(np.ndarray):
        __hash__ = object.__hash__

    def stream():
        for t in range(24):
            frame = np.full((64, 96, 3), t * 10, np.uint8).view(Frame)
            alive.add(frame)
            most.append(len(alive))
            yield frame

    result = OnlinePredictor(ready(), window=2).run(stream())
    assert len(result) == 24
    assert max(most) <= 2 * 2 + 2  # this window, the last one, and the frame shown last


def test_masks_wait_on_disk_which_is_clean_afterwards(temporary_folder):
    seen = []

    def watch(progress):
        seen.append((progress.stage, progress.done, progress.total, len(progress.live().tracks)))

    result = OnlinePredictor(ready()).run(video(4), watch=watch)
    assert [entry[:2] for entry in seen] == [(stage, t) for stage in ("track", "encode") for t in range(1, 5)]
    assert all(total == 4 for stage, _, total, _ in seen if stage == "encode")
    assert all(tracks > 0 for stage, _, _, tracks in seen if stage == "track")
    assert len(result.tracks) > 0
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("stage", ["track", "encode"])
def test_a_run_can_be_stopped_in_either_pass(temporary_folder, stage):
    stop, done = threading.Event(), []

    def watch(progress):
        done.append(progress)
        if progress.stage == stage:
            stop.set()

    with pytest.raises(Cancelled):
        OnlinePredictor(ready(), window=2).run(video(6), watch=watch, stop=stop)
    assert sum(progress.stage == stage for progress in done) <= 2
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("score", ["class", "class_and_mask"])
def test_the_most_probable_pairs_are_in_the_result_and_then_ranked_by_score(score):
    everything = OnlinePredictor(ready(), top_k=24).run(video())
    for top_k in (1, 3, 5):
        some = OnlinePredictor(ready(score=score), top_k=top_k).run(video())
        assert {track.id for track in some.tracks} == {track.id for track, _, _ in everything.predictions(top_k)}
        assert [track.score for track in some.tracks] == sorted((track.score for track in some.tracks), reverse=True)


def test_the_best_pairs_of_all_queries_are_in_the_result():
    model = ready()
    everything = OnlinePredictor(model, top_k=24).run(video())
    for top_k in (1, 3, 5):
        some = OnlinePredictor(model, top_k=top_k).run(video())
        best = [(track.id, label, score) for track, label, score in some.predictions(top_k)]
        expected = [(track.id, label, score) for track, label, score in everything.predictions(top_k)]
        assert [pair[:2] for pair in best] == [pair[:2] for pair in expected]
        assert {track.id for track in some.tracks} == {pair[0] for pair in expected}


def test_results_are_complete():
    class Source(list):
        timestamps = np.array([0.0, 0.1, 0.25])
        notes = ("One frame was lost.",)

    result = OnlinePredictor(ready()).run(Source(video(3)))
    assert result.timestamps.tolist() == [0.0, 0.1, 0.25]
    assert result.notes == ("One frame was lost.",)
    assert (result.height, result.width, result.model, result.categories) == (64, 96, "nano", CATEGORIES)
    assert [track.score for track in result.tracks] == sorted((track.score for track in result.tracks), reverse=True)
    for track in result.tracks:
        assert track.core.shape == (3, 32)
        assert track.context_aware.shape == (3, 64)
        for mask, box in zip(track.masks, track.boxes, strict=True):
            assert tuple(box) == (rle.box(mask) if mask else (0, 0, 0, 0))


def test_a_video_of_one_frame_has_results():
    assert len(OnlinePredictor(ready()).run(video(1))) == 1


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
def test_what_is_not_a_video_is_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        OnlinePredictor(ready()).run(frames)


@pytest.mark.parametrize("predictor", [OnlinePredictor, OfflinePredictor])
@pytest.mark.parametrize("as_source", [list, iter], ids=["list", "stream"])
def test_fewer_timestamps_than_frames_are_refused(predictor, as_source, temporary_folder):
    model = ready("refiner" if predictor is OfflinePredictor else "tracker")
    some = predictor(model, window=2)
    message = "expected at least [45] timestamps, one for each frame, got 3"  # of a stream what was read so far
    with pytest.raises(ValueError, match=message):
        some.run(as_source(video(5)), timestamps=np.array([0.0, 0.1, 0.2]))
    assert list(temporary_folder.iterdir()) == []
    result = some.run(as_source(video(3)), timestamps=np.array([0.0, 0.1, 0.2, 0.3]))
    assert result.timestamps.tolist() == [0.0, 0.1, 0.2]


def test_timestamps_of_a_source_that_are_too_few_are_refused():
    class Source(list):
        timestamps = np.zeros(2)

    with pytest.raises(ValueError, match="expected at least 3 timestamps, one for each frame, got 2"):
        OnlinePredictor(ready()).run(Source(video(3)))


def test_windows_cut_a_stream_in_order():
    assert list(windows(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(windows([], 3)) == []


def test_best_slots_are_those_of_the_best_pairs():
    scores = np.array([[0.1, 0.5], [0.6, 0.4], [0.2, 0.3]])
    assert best_slots(scores, 1) == [1]
    assert best_slots(scores, 3) == [1, 0]
    assert best_slots(scores, 99) == [1, 0, 2]
