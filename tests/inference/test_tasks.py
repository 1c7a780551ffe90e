"""Three tasks from one first pass, against the same rules on whole tensors."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nano import images, nano_config, nano_model, nano_preset

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import InferenceConfig, ModelConfig
from cavis.inference.online import Cancelled, OnlinePredictor
from cavis.inference.panoptic import confident_slots, panoptic
from cavis.inference.postprocess import Contest, Sizes, instance_masks
from cavis.inference.second_pass import FirstPass, instances
from cavis.inference.semantic import semantic

SIZES = [Sizes((60, 88), (60, 88)), Sizes((75, 90), (50, 60)), Sizes((33, 47), (61, 87))]
QUERIES, CLASSES, FRAMES = 12, 5, 3


class InMemory:
    """Masks of all frames, and a note of what was asked."""

    def __init__(self, masks, hidden=2):
        self.array, self.frames, self.asked = masks, masks.shape[1], []
        slots, frames = np.mgrid[: len(masks), : self.frames]
        self.all_features = np.stack([slots, frames, slots + 100, frames + 100], axis=-1).astype(np.float32)

    def masks(self, t, slots):
        self.asked.append((t, slots))
        return self.array[slots, t]

    def features(self, t, slots):
        return self.all_features[slots, t]


def about(stuff=0, classes=CLASSES):
    names = tuple(f"class {k}" for k in range(classes))
    return ModelFile("numbers", "nano", ModelConfig(categories=names, stuff=stuff, hidden=2), "tracker", "")


def first_pass(masks, probabilities, sizes, stuff=0):
    frame = np.zeros((*sizes.frame, 3), np.uint8)
    kept = InMemory(np.asarray(masks, np.float32))
    times = np.arange(kept.frames) / 10
    known = about(stuff, probabilities.shape[1] - 1)
    return FirstPass(known, np.asarray(probabilities, np.float32), kept, sizes, times, frame, ("A note.",))


def random_first_pass(seed, sizes, stuff=2):
    """Smooth masks over a padded input, and classes of which some are certain."""
    generator = torch.Generator().manual_seed(seed)
    padded = [(side + 31) // 32 * 8 for side in sizes.network]
    coarse = torch.randn(QUERIES, FRAMES, 4, 6, generator=generator) * 4 - 2
    masks = F.interpolate(coarse, size=padded, mode="bilinear")
    logits = torch.randn(QUERIES, CLASSES + 1, generator=generator) * 3
    return first_pass(masks.numpy(), logits.softmax(dim=-1).numpy(), sizes, stuff)


def resized(masks, size):
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)


def whole_probabilities(first):
    """Mask probabilities of all slots in all frames, at once."""
    masks, (height, width) = torch.from_numpy(first.kept.array), first.sizes.network
    padded = resized(masks, (4 * masks.shape[2], 4 * masks.shape[3]))[:, :, :height, :width]
    return resized(padded.sigmoid(), first.sizes.frame)


def whole_panoptic(first, min_score, min_visible_share):
    """The published rule: an id map [T, H, W] and (id, isthing, class, slot) of each segment."""
    probabilities = torch.from_numpy(first.probabilities)
    score, label = probabilities.max(dim=1)
    kept = ((label != CLASSES) & (score > min_score)).nonzero()[:, 0]
    masks = whole_probabilities(first)[kept]
    ids = np.zeros((FRAMES, *first.sizes.frame), np.int32)
    segments, stuff_ids, things = [], {}, CLASSES - first.about.config.stuff
    if len(kept) == 0:
        return ids, segments
    owner = (score[kept, None, None, None] * masks).argmax(dim=0)
    for i, slot in enumerate(kept.tolist()):
        own, won = masks[i] >= 0.5, owner == i
        mask = (own & won).numpy()
        if not (own.any() and won.any() and mask.any()) or int(won.sum()) / int(own.sum()) < min_visible_share:
            continue
        kind = int(label[slot])
        if kind in stuff_ids:
            ids[mask] = stuff_ids[kind]
            continue
        number = len(segments) + 1
        ids[mask] = number
        segments.append((number, kind < things, kind, slot))
        if kind >= things:
            stuff_ids[kind] = number
    return ids, segments


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("min_score", "share"), [(0.0, 0.0), (0.4, 0.6), (0.3, 0.4)])
def test_segments_frame_by_frame_are_those_of_the_rule_on_whole_tensors(sizes, min_score, share):
    found, dropped = 0, 0
    for seed in range(4):
        first = random_first_pass(seed, sizes)
        result = panoptic(first, min_score, share, range(FRAMES))
        ids, segments = whole_panoptic(first, min_score, share)
        assert [(s.track.id, s.isthing, s.track.label, s.slot) for s in result.segments] == segments
        np.testing.assert_array_equal(np.stack(list(result.id_maps())), ids)
        found += len(segments)
        dropped += len(confident_slots(first.probabilities, min_score)) - len(segments)
    assert found > 0
    assert dropped > 0  # by the rule, or into stuff that others have begun


@pytest.mark.parametrize("sizes", SIZES)
def test_classes_frame_by_frame_are_those_of_the_sum_over_whole_tensors(sizes):
    for seed in range(3):
        first = random_first_pass(seed, sizes)
        scores = torch.from_numpy(first.probabilities[:, :-1])
        votes = torch.einsum("qk,qtyx->ktyx", scores, whole_probabilities(first))
        result = semantic(first, range(FRAMES))
        found = np.stack(list(result.class_maps()))
        best, second = votes.topk(2, dim=0).values
        clear = (best - second > 1e-5).numpy()
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(found[clear], votes.argmax(dim=0).numpy()[clear])
        mean = (best / votes.sum(dim=0)).numpy()
        for region in result.regions:
            assert region.share == pytest.approx(mean[found == region.label].mean(), abs=1e-4)


def test_instances_frame_by_frame_are_those_of_whole_tensors():
    first = random_first_pass(5, SIZES[1])
    result = instances(first, InferenceConfig(top_k=6), range(FRAMES))
    best = np.sort(first.probabilities[:, :-1].ravel())[::-1][:6]
    assert [score for _, _, score in result.predictions(6)] == pytest.approx(best.tolist())
    masks = torch.from_numpy(first.kept.array)
    padded = resized(masks, (4 * masks.shape[2], 4 * masks.shape[3]))[:, :, :50, :60]
    whole = (resized(padded, (75, 90)) > 0).numpy()
    for track in result.tracks:
        np.testing.assert_array_equal(dense(track.masks, (75, 90)), whole[track.id])
        np.testing.assert_array_equal(track.core, first.kept.all_features[track.id, :, :2])
        np.testing.assert_array_equal(track.context_aware, first.kept.all_features[track.id, :, 2:])


@pytest.mark.parametrize("score", ["class", "class_and_mask"])
def test_a_track_is_doubted_by_the_frames_in_which_it_has_no_mask(score):
    rng = np.random.default_rng(0)
    frames, doubt = 5, 3
    seen = [5, 4, 1, 0]
    logits = rng.uniform(1, 4, (len(seen), frames, 8, 8))
    for row, n in enumerate(seen):
        logits[row, rng.permutation(frames)[n:]] *= -1
    first = first_pass(logits, np.full((len(seen), 3), 1 / 3), Sizes((32, 32), (32, 32)))
    rule = InferenceConfig(top_k=1000, score=score)
    plain, doubted = (
        {track.id: track.class_scores for track in instances(first, one, range(frames)).tracks}
        for one in (rule, replace(rule, doubt=doubt))
    )
    assert plain.keys() == doubted.keys() == ({0, 1, 2, 3} if score == "class" else {0, 1, 2})
    for row in plain:
        share = seen[row] / (seen[row] + doubt) * (frames + doubt) / frames
        np.testing.assert_allclose(doubted[row], share * plain[row], rtol=1e-6)
    np.testing.assert_array_equal(doubted[0], plain[0])


@pytest.mark.parametrize("score", ["class", "class_and_mask"])
@pytest.mark.parametrize("max_overlap", [0.15, 0.25])
def test_of_tracks_that_overlap_too_much_the_best_is_kept(score, max_overlap):
    first = random_first_pass(5, SIZES[1])
    rule = InferenceConfig(top_k=1000, score=score)
    everything = instances(first, rule, range(FRAMES)).tracks
    kept = instances(first, replace(rule, max_overlap=max_overlap), range(FRAMES)).tracks
    rows, columns = (math.ceil(side / 4) for side in SIZES[1].network)
    masks = first.kept.array[:, :, :rows, :columns] > 0

    def overlap(one, other):
        return (masks[one.id] & masks[other.id]).sum() / (masks[one.id] | masks[other.id]).sum()

    expected = []
    for track in everything:  # best first
        if all(overlap(track, better) <= max_overlap for better in expected):
            expected.append(track)
    assert 1 < len(expected) < len(everything)
    assert [(track.id, track.score) for track in kept] == [(track.id, track.score) for track in expected]


@pytest.mark.parametrize("pixels", [1, 75 * 90, 5 * 75 * 90])
def test_working_on_few_maps_at_a_time_changes_nothing(monkeypatch, pixels):
    first = random_first_pass(1, SIZES[1])
    whole = everything(first)
    monkeypatch.setattr("cavis.inference.postprocess.MAP_PIXELS", pixels)
    for left, right in zip(everything(first), whole, strict=True):
        np.testing.assert_array_equal(left, right)


def everything(first):
    masks = instance_masks(torch.from_numpy(first.kept.array[:, 0]), first.sizes).numpy()
    ids = list(panoptic(first, 0.3, 0.5, range(FRAMES)).id_maps())
    return masks, np.stack(ids), np.stack(list(semantic(first, range(FRAMES)).class_maps()))


def dense(masks, size):
    return np.stack([rle.decode(mask) if mask else np.zeros(size, bool) for mask in masks])


def boxes_first_pass(boxes, labels, scores, stuff=2):
    """Slots that are rectangles (left, right) of a frame of 64 x 64, the same in two frames."""
    masks = np.full((len(boxes), 2, 16, 16), -9.0, np.float32)
    for mask, (left, right) in zip(masks, boxes, strict=True):
        mask[..., left // 4 : right // 4] = 9
    probabilities = np.zeros((len(boxes), CLASSES + 1), np.float32)
    probabilities[np.arange(len(boxes)), labels] = scores
    probabilities[:, -1] = 1 - np.array(scores)
    return first_pass(masks, probabilities, Sizes((64, 64), (64, 64)), stuff)


def test_stuff_of_a_class_shares_a_segment_and_things_do_not():
    first = boxes_first_pass([(0, 16), (16, 32), (32, 48), (48, 64)], [4, 1, 4, 1], [0.9, 0.9, 0.95, 0.9])
    result = panoptic(first, 0.8, 0.8, range(2))
    assert [(s.track.id, s.isthing, s.track.label, s.slot) for s in result.segments] == [
        (1, False, 4, 0),
        (2, True, 1, 1),
        (3, True, 1, 3),
    ]
    assert result.id_map(1)[30, [4, 20, 40, 60]].tolist() == [1, 2, 1, 3]
    sky = result.segments[0].track
    assert rle.area(sky.masks[0]) == (result.id_map(0) == 1).sum()
    assert sky.boxes[0].tolist() == list(rle.box(sky.masks[0]))
    assert sky.core[:, 0].tolist() == [0, 0]
    assert sky.score == pytest.approx(0.9)


def test_what_is_mostly_covered_is_dropped_and_leaves_void():
    behind, before = (0, 32), (16, 64)
    first = boxes_first_pass([behind, before], [0, 1], [0.85, 0.95])
    strict, lenient = (panoptic(first, 0.8, share, range(2)) for share in (0.8, 0.3))
    assert [s.slot for s in strict.segments] == [1]
    assert [s.slot for s in lenient.segments] == [0, 1]
    assert strict.id_map(0)[30, [8, 24, 60]].tolist() == [0, 1, 1]
    assert lenient.id_map(0)[30, [8, 24, 60]].tolist() == [1, 2, 2]


def test_the_overlap_rule_looks_at_the_whole_video():
    """Hidden in one frame but free in the other: half of the mask is won."""
    first = boxes_first_pass([(0, 32), (0, 32)], [0, 1], [0.85, 0.95])
    first.kept.array[1, 1] = -9
    kept = [[s.slot for s in panoptic(first, 0.8, share, range(2)).segments] for share in (0.4, 0.8)]
    assert kept == [[0, 1], [1]]


def test_without_a_confident_slot_all_is_void():
    first = boxes_first_pass([(0, 32), (32, 64)], [0, 4], [0.5, 0.5])
    result = panoptic(first, 0.8, 0.8, range(2))
    assert result.segments == ()
    assert len(result) == 2
    assert not np.stack(list(result.id_maps())).any()
    assert result.as_video().tracks == ()


def test_confident_slots_are_sure_of_a_class():
    probabilities = np.array([[0.7, 0.1, 0.2], [0.1, 0.1, 0.8], [0.1, 0.5, 0.4], [0.05, 0.9, 0.9]], np.float32)
    assert confident_slots(probabilities, 0.6) == [0, 3]  # the class of two equals is the first
    assert confident_slots(probabilities, 0.0) == [0, 2, 3]
    assert confident_slots(probabilities, 0.95) == []


def test_only_confident_slots_are_asked_for_masks():
    first = random_first_pass(3, SIZES[0])
    panoptic(first, 0.5, 0.5, range(FRAMES))
    slots = confident_slots(first.probabilities, 0.5)
    assert 0 < len(slots) < QUERIES
    assert first.kept.asked == [(t, slots) for t in range(FRAMES)]


def test_a_panoptic_result_is_a_video_of_its_segments():
    first = random_first_pass(2, SIZES[1])
    result = panoptic(first, 0.4, 0.2, range(FRAMES))
    video = result.as_video()
    assert len(video) == len(result) == FRAMES
    assert (video.height, video.width, video.model, video.notes) == (75, 90, "numbers", ("A note.",))
    assert [track.score for track in video.tracks] == sorted((track.score for track in video.tracks), reverse=True)
    ids = np.stack(list(result.id_maps()))
    assert {track.id for track in video.tracks} == set(np.unique(ids)) - {0}
    for track in video.tracks:
        np.testing.assert_array_equal(dense(track.masks, (75, 90)), ids == track.id)


def test_classes_divide_every_frame():
    first = random_first_pass(2, SIZES[2])
    result = semantic(first, range(FRAMES))
    covered = sum(dense(region.masks, (33, 47)).astype(int) for region in result.regions)
    assert (covered == 1).all()
    video = result.as_video()
    assert {track.label for track in video.tracks} == {region.label for region in result.regions}
    assert all(0 < track.score <= 1 for track in video.tracks)
    assert all(track.core.shape == (FRAMES, 0) for track in video.tracks)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_highest_of_many_maps_wins_and_the_first_of_equals(rows):
    contest = Contest((1, 3))
    maps = torch.tensor(rows, dtype=torch.float32)
    for number, row in enumerate(maps):
        better = contest.enter(row[None], number)
        assert (contest.winner[better] == number).all()
    assert contest.winner[0].tolist() == np.argmax(maps.numpy(), axis=0).tolist()
    assert contest.best[0].tolist() == maps.max(dim=0).values.tolist()


def predictor(task, window=None):
    """A nano model that is sure of everything and has one class of stuff."""
    config = replace(nano_config(), stuff=1)
    rules = replace(nano_preset().inference, task=task, min_score=0.0, min_visible_share=0.0)
    ready = ReadyModel(nano_model(), ModelFile("nano", "nano", config, "tracker", ""), rules, "")
    return OnlinePredictor(ready, window=window)


def video(frames=4):
    return list(images(1, frames, 64, 96)[0].permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("task", "method"), [("panoptic", "run_panoptic"), ("semantic", "run_semantic")])
def test_a_run_is_of_the_models_own_task(task, method):
    own = predictor(task).run(video())
    named = getattr(predictor("instance"), method)(video()).as_video()
    assert [(track.id, track.masks) for track in own.tracks] == [(track.id, track.masks) for track in named.tracks]
    assert len(own.tracks) > 0


def test_any_model_can_be_asked_for_instances():
    left, right = predictor("panoptic").run_instances(video()), predictor("instance").run(video())
    assert [(track.id, track.masks) for track in left.tracks] == [(track.id, track.masks) for track in right.tracks]


def test_segments_do_not_depend_on_the_window():
    whole, *others = (np.stack(list(predictor("panoptic", n).run_panoptic(video()).id_maps())) for n in (4, 1, 3))
    assert len(np.unique(whole)) > 1
    for other in others:
        assert (other != whole).mean() < 2e-3  # masks wait in half precision


@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_every_task_reports_its_frames_and_can_be_stopped(temporary_folder, task):
    seen, stop = [], threading.Event()
    predictor(task).run(video(), watch=lambda progress: seen.append((progress.stage, progress.done)))
    assert seen == [(stage, t) for stage in ("track", "encode") for t in (1, 2, 3, 4)]

    def watch(progress):
        if progress.stage == "encode":
            stop.set()

    with pytest.raises(Cancelled):
        predictor(task).run(video(), watch=watch, stop=stop)
    assert list(temporary_folder.iterdir()) == []
