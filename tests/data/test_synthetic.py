import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment

from cavis.data.synthetic import CATEGORIES, TwinsClip, TwinsConfig, clip_seed, synthesize
from cavis.data.synthetic.sprites import cutouts

SMALL = TwinsConfig(height=64, width=96, frames=4)


# ---------------------------------------------------------------------------------------------- difficulty


@dataclass
class Watched:
    """What the shares are computed from."""

    clip: TwinsClip
    visible: np.ndarray  # T N H W
    whole: np.ndarray  # T N H W

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [(one, int(other)) for one, other in enumerate(self.clip.twin_of) if other > one]


@pytest.fixture(scope="module")
def watched() -> list[Watched]:
    return [watch(TwinsClip(clip_seed(2024, index))) for index in range(40)]


def watch(clip: TwinsClip) -> Watched:
    # Every other pixel is enough to compare areas, and four times quicker.
    visible = np.stack([clip.render(t)[1][:, ::2, ::2] for t in range(len(clip))])
    whole = np.stack([clip.whole_masks(t)[:, ::2, ::2] for t in range(len(clip))])
    return Watched(clip, visible, whole)


def longest_run(flags: np.ndarray) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


def has_hidden_crossing(clip: Watched) -> bool:
    """Somewhere at least half of a twin is hidden for at least four frames while its outline overlaps its twin's."""
    whole = clip.whole.sum((2, 3))
    hidden = 1 - clip.visible.sum((2, 3)) / np.maximum(whole, 1)
    runs = []
    for pair in clip.pairs:
        meet = (clip.whole[:, pair[0]] & clip.whole[:, pair[1]]).any((1, 2))
        runs += [longest_run(meet & (whole[:, twin] > 0) & (hidden[:, twin] >= 0.5)) for twin in pair]
    return max(runs, default=0) >= 4


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (first, second))
    common = first @ second.T
    return common / np.maximum(first.sum(1)[:, None] + second.sum(1)[None] - common, 1)


def link_by_overlap(visible: np.ndarray) -> np.ndarray:
    """Track of each object in each frame, -1 where hidden: the best assignment to what was last seen of each track."""
    tracks = np.full(visible.shape[:2], -1)
    last: list[np.ndarray] = []
    for t, masks in enumerate(visible):
        shown = np.flatnonzero(masks.any((1, 2)))
        if last and len(shown):
            scores = overlap(masks[shown], np.stack(last))
            for row, track in zip(*linear_sum_assignment(-scores), strict=True):
                if scores[row, track] > 0:
                    tracks[t, shown[row]] = track
        for index in shown:
            if tracks[t, index] < 0:
                tracks[t, index] = len(last)
                last.append(masks[index])
            last[tracks[t, index]] = masks[index]
    return tracks


def switches_a_twin(clip: Watched) -> bool:
    """A twin that was on one track is later on another one."""
    tracks = link_by_overlap(clip.visible)
    return any(len(set(tracks[:, twin]) - {-1}) > 1 for pair in clip.pairs for twin in pair)


def confuses_objects(clip: Watched) -> bool:
    """One track has been on two objects."""
    tracks = link_by_overlap(clip.visible)
    seen = [set(tracks[:, index]) - {-1} for index in range(tracks.shape[1])]
    return any(seen[one] & seen[other] for one in range(len(seen)) for other in range(one))


def shown_pairs(clip: Watched) -> int:
    shown = clip.visible.any((2, 3)).sum(0)
    return sum(min(shown[one], shown[other]) >= 6 for one, other in clip.pairs)


def test_default_difficulty_has_its_measured_floor(watched, capsys):
    shares = {
        "at least two pairs of twins": np.mean([shown_pairs(clip) >= 2 for clip in watched]),
        "half of a twin hidden for 4 frames of a crossing": np.mean([has_hidden_crossing(clip) for clip in watched]),
        "linking by overlap switches a twin's identity": np.mean([switches_a_twin(clip) for clip in watched]),
        "linking by overlap confuses two objects": np.mean([confuses_objects(clip) for clip in watched]),
    }
    with capsys.disabled():
        print(f"\nthe twins' world, {len(watched)} default clips:")
        for name, share in shares.items():
            print(f"  {share:4.0%}  {name}")
    assert all(share >= floor for share, floor in zip(shares.values(), (0.8, 0.6, 0.5, 0.5), strict=True)), shares


def test_linking_by_overlap_keeps_what_never_meets():
    masks = np.zeros((6, 2, 20, 40), dtype=bool)
    for t in range(6):
        masks[t, 0, 2:8, 2 + 3 * t : 12 + 3 * t] = True
        masks[t, 1, 12:18, 20 - 3 * t : 30 - 3 * t] = True
    assert (link_by_overlap(masks) == link_by_overlap(masks)[0]).all()


def test_default_clips_have_twenty_classes_of_visible_size(watched):
    assert TwinsConfig().height == 160
    assert TwinsConfig().width == 240
    assert TwinsConfig().frames == 24
    assert {label for clip in watched for label in clip.clip.labels} == set(range(20))
    sides = np.array([2 * np.ptp(np.flatnonzero(m.any(1))) for clip in watched for m in clip.whole[12] if m.any()])
    assert np.mean((sides >= 20) & (sides <= 90)) > 0.9


# -------------------------------------------------------------------------------------------------- the plan


def test_cutouts_cover_the_categories():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 20
    assert set(cutouts().values()) == set(CATEGORIES)
    assert len(cutouts()) == 60


def test_only_twins_look_alike_and_each_has_its_own_companion(watched):
    for clip in (watch.clip for watch in watched):
        assert len(clip.labels) <= 14
        for index, twin in enumerate(clip.twin_of):
            alike = [other for other, name in enumerate(clip.cutouts) if name == clip.cutouts[index] and other != index]
            assert alike == ([twin] if twin >= 0 else [])
        twins = np.flatnonzero(clip.twin_of >= 0)
        led = clip.companion_of[clip.companion_of >= 0]
        assert sorted(led) == sorted(twins)
        assert [CATEGORIES[label] for label in clip.labels] == [cutouts()[name] for name in clip.cutouts]


def test_companions_stay_beside_their_twin():
    clip = TwinsClip(5, TwinsConfig(width=600, camera_motion=(0, 0)))
    for t in (0, 11, 23):
        masks = clip.whole_masks(t)
        for companion, twin in enumerate(clip.companion_of):
            if twin >= 0 and masks[companion].any() and masks[twin].any():
                near = binary_dilation(masks[twin], iterations=25)
                assert (near & masks[companion]).any()


@pytest.mark.parametrize(("pairs", "singles"), [((0, 0), (3, 3)), ((1, 1), (0, 0)), ((3, 3), (2, 2))])
def test_counts_follow_the_config(pairs, singles):
    clip = TwinsClip(1, replace(SMALL, twin_pairs=pairs, singles=singles))
    assert len(clip.labels) == 4 * pairs[0] + singles[0]
    assert np.sum(clip.twin_of >= 0) == 2 * pairs[0]


def test_long_clips_meet_again_and_again():
    clip = TwinsClip(3, TwinsConfig(frames=130, singles=(0, 0), obstacles=(0, 0), camera_motion=(0, 0)))
    meet = [(lambda m: bool((m[0] & m[1]).sum() > 0.5 * m[0].sum() > 0))(clip.whole_masks(t)) for t in range(130)]
    starts = sum(now and not before for before, now in zip([False, *meet], meet, strict=False))
    assert starts >= 3


# --------------------------------------------------------------------------------------------------- rendering


def test_same_seed_gives_the_same_clip_in_any_order_of_frames():
    first, second = TwinsClip(11, SMALL), TwinsClip(11, SMALL)
    forwards = [first.render(t) for t in range(4)]
    backwards = [second.render(t) for t in reversed(range(4))][::-1]
    for (image, masks), (same_image, same_masks) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(masks, same_masks)
    assert not np.array_equal(forwards[0][0], TwinsClip(12, SMALL).render(0)[0])


def test_masks_are_disjoint_and_within_the_whole_object():
    clip = TwinsClip(21)
    for t in (0, 12):
        image, masks = clip.render(t)
        assert image.dtype == np.uint8
        assert image.shape == (160, 240, 3)
        assert masks.dtype == bool
        assert masks.shape == (len(clip.labels), 160, 240)
        assert masks.sum(0).max() == 1
        assert not (masks & ~clip.whole_masks(t)).any()


def test_masks_lie_where_the_picture_shows_the_object():
    config = replace(SMALL, twin_pairs=(0, 0), singles=(1, 1), obstacles=(0, 0), noise=(0, 0), blur=(0, 0))
    bare = replace(config, singles=(0, 0))
    found = 0
    for seed in range(12):
        clip, empty = TwinsClip(seed, config), TwinsClip(seed, bare)
        (image, masks), (ground, _) = clip.render(2), empty.render(2)
        changed = np.abs(image.astype(int) - ground).max(-1) > 2
        if masks[0].any():
            assert changed[masks[0]].mean() > 0.9
            # Around it lie its soft edge and its shadow, both at most four pixels wide at this size.
            assert not (changed & ~binary_dilation(masks[0], np.ones((3, 3)), iterations=4)).any()
            found += masks[0].sum()
    assert found > 1000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_companions_everything_else_stays_the_same(seed):
    together, alone = TwinsClip(seed), TwinsClip(seed, TwinsConfig(companions=False))
    others = together.companion_of < 0
    assert others.sum() == len(alone.labels) < len(together.labels)
    np.testing.assert_array_equal(together.labels[others], alone.labels)
    assert (alone.companion_of == -1).all()
    changed = 0
    for t in (3, 12, 20):
        (image, masks), (bare, bare_masks) = together.render(t), alone.render(t)
        np.testing.assert_array_equal(together.whole_masks(t)[others], alone.whole_masks(t))
        assert not (masks[others] & ~bare_masks).any()
        # A shadow falls up to 5.5 % of the longest side beside the companion, and the lens blurs over 1 more pixel.
        touched = binary_dilation(together.whole_masks(t)[~others].any(0), np.ones((3, 3)), iterations=9)
        differs = (image != bare).any(-1)
        changed += differs.sum()
        assert not (differs & ~touched).any()
    assert changed > 500


def test_background_contrast_flattens_the_background():
    def spread(contrast: float) -> float:
        config = replace(SMALL, twin_pairs=(0, 0), singles=(0, 0), obstacles=(0, 0), noise=(0, 0))
        return float(
            TwinsClip(4, replace(config, background_contrast=(contrast, contrast))).render(0)[0].std((0, 1)).max()
        )

    assert spread(0) < 1 < spread(0.5) < spread(1)


def test_frames_outside_of_the_clip_are_refused():
    clip = TwinsClip(0, SMALL)
    for t in (-1, 4):
        with pytest.raises(IndexError, match=r"0 \.\.\. 3"):
            clip.render(t)


# ------------------------------------------------------------------------------------------- config and seeds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 8),
        ("width", 100.5),
        ("frames", 0),
        ("speed", (0.1, 0.05)),
        ("speed", 0.1),
        ("scale", (0.0, 0.4)),
        ("occlusion", 1.5),
        ("through", -0.1),
        ("twin_pairs", (4, 4)),
        ("singles", (0.5, 1)),
        ("noise", (0.0, 2.0)),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(field, value):
    with pytest.raises(ValueError, match="expected"):
        TwinsConfig(**{field: value})


def test_clip_seeds_do_not_collide():
    seeds = {clip_seed(seed, index) for seed in (0, 1, 2, 2**32, 2**40) for index in range(2000)}
    assert len(seeds) == 5 * 2000
    assert clip_seed(7, 3) == clip_seed(7, 3) < 2**63
    with pytest.raises(ValueError, match="at least 0"):
        clip_seed(-1, 0)
    with pytest.raises(ValueError, match="at least 0"):
        TwinsClip(-1)


# ------------------------------------------------------------------------------------------------------ export


def test_written_data_set_holds_what_the_clips_show(tmp_path):
    out = tmp_path / "deep" / "twins"
    done = []
    synthesize(out, 2, seed=9, config=SMALL, progress=done.append)
    content = json.loads((out / "annotations.json").read_text())
    assert done == [1, 2]
    assert [category["name"] for category in content["categories"]] == list(CATEGORIES)
    stored = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["info"]["config"].items()
    }
    assert TwinsConfig(**stored) == SMALL
    assert content["info"]["seed"] == 9
    for index, video in enumerate(content["videos"]):
        clip = TwinsClip(clip_seed(9, index), SMALL)
        frames = [clip.render(t) for t in range(4)]
        annotations = [entry for entry in content["annotations"] if entry["video_id"] == video["id"]]
        shown = [n for n in range(len(clip.labels)) if any(masks[n].any() for _, masks in frames)]
        assert [entry["category_id"] - 1 for entry in annotations] == [clip.labels[n] for n in shown]
        assert video["length"] == len(video["file_names"]) == 4
        for t, name in enumerate(video["file_names"]):
            picture = np.asarray(Image.open(out / "JPEGImages" / name)).astype(int)
            assert np.abs(picture - frames[t][0]).mean() < 8
            for n, entry in zip(shown, annotations, strict=True):
                check_annotation(entry, t, frames[t][1][n])


def check_annotation(entry: dict, t: int, mask: np.ndarray) -> None:
    segmentation, box, area = entry["segmentations"][t], entry["bboxes"][t], entry["areas"][t]
    if not mask.any():
        assert segmentation is None
        assert box is None
        assert area is None
        return
    assert isinstance(segmentation["counts"], str)
    np.testing.assert_array_equal(coco_mask.decode(segmentation).astype(bool), mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert box == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert area == mask.sum()


def test_a_folder_with_something_in_it_is_refused_unless_told(tmp_path):
    out = tmp_path / "twins"
    out.mkdir()
    synthesize(out, 2, seed=0, config=SMALL)
    (out / "notes.txt").write_text("mine")
    before = (out / "annotations.json").read_text()
    with pytest.raises(FileExistsError, match="not empty"):
        synthesize(out, 1, seed=1, config=SMALL)
    assert (out / "annotations.json").read_text() == before
    synthesize(out, 1, seed=1, config=SMALL, overwrite=True)
    assert (out / "annotations.json").read_text() != before
    assert [path.name for path in (out / "JPEGImages").iterdir()] == ["00000"]
    assert (out / "notes.txt").read_text() == "mine"


def test_nothing_half_made_stays(tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "twins", 2, seed=0, config=SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_impossible_orders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 clip"):
        synthesize(tmp_path / "twins", 0, seed=0)
    with pytest.raises(ValueError, match="seed"):
        synthesize(tmp_path / "twins", 1, seed=-3)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        synthesize(tmp_path / "file", 1, seed=0, overwrite=True)
