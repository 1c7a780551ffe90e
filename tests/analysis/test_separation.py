import numpy as np
import pandas as pd
import pytest
from made_up import clumps, table_of
from torch import from_numpy

from cavis.analysis import associate, difference, mean_over_clips, nearest, purity, separation, vectors
from cavis.model.association import match


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def plain_purity(values, identities, k):
    shares = []
    for i in range(len(values)):
        others = sorted((j for j in range(len(values)) if j != i), key=lambda j: -cosine(values[i], values[j]))
        shares.append(np.mean([identities[j] == identities[i] for j in others[:k]]))
    return np.array(shares)


def plain_silhouette(values, identities):
    found = []
    for i in range(len(values)):
        mean = {
            one: np.mean([1 - cosine(values[i], values[j]) for j in np.flatnonzero(identities == one) if j != i])
            for one in set(identities)
        }
        inside, outside = mean.pop(identities[i]), min(mean.values())
        found.append((outside - inside) / max(outside, inside))
    return np.mean(found)


def test_both_measures_are_what_their_definitions_say():
    values, identities = clumps(spread=0.8)
    found = separation(table_of(values, identities), "core", k=4)
    assert found.purities[0] == pytest.approx(plain_purity(values, identities, 4).mean())
    assert found.silhouettes[0] == pytest.approx(plain_silhouette(values, identities), abs=1e-5)


def test_clumps_are_pure_and_mixed_up_identities_are_not():
    values, identities = clumps(frames=30, spread=0.02)
    assert separation(table_of(values, identities), "core").purity.value == 1.0
    mixed = np.random.default_rng(0).permutation(identities)
    found = separation(table_of(values, mixed), "core")
    assert found.purity.value == pytest.approx(1 / 3, abs=0.1)
    assert abs(found.silhouette.value) < 0.1


def test_neighbours_in_time_do_not_count_within_the_gap():
    """An embedding that drifts: near in time is near in space, whoever it is."""
    angle = np.linspace(0, 3, 40)
    values = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    identities = np.where(np.arange(40) < 20, 0, 1)
    table = table_of(values, identities)
    near, far = (separation(table, "core", k=2, gap=gap).purity.value for gap in (0, 15))
    assert near > 0.9 > 0.6 > far
    allowed = np.abs(np.subtract.outer(np.arange(40), np.arange(40))) > 15
    assert far == pytest.approx(np.nanmean(purity(values, identities, 2, allowed)))


def test_lookalikes_are_compared_with_their_own_kind_only():
    values, identities = clumps(objects=4, frames=10, spread=0.05)
    values[identities == 1] = values[identities == 0] + 0.01  # twins
    table = table_of(values, identities, categories=np.array(["cat", "cat", "dog", "cow"])[identities])
    alike = separation(table, "core", lookalikes=True)
    pair = table[table["true_category"] == "cat"]
    assert alike.purities[0] == pytest.approx(separation(pair, "core").purities[0])
    assert alike.purity.value < separation(table, "core").purity.value


def test_clips_are_compared_each_in_itself():
    values, identities = clumps(spread=0.5)
    one = table_of(values, identities)
    two = pd.concat([one, one.assign(clip="b")], ignore_index=True)
    found = separation(two, "core")
    assert found.clips == ("a", "b")
    assert found.purities[0] == found.purities[1] == separation(one, "core").purities[0]


def test_rows_of_nobody_and_clips_of_one_object_do_not_count():
    values, identities = clumps(objects=4, spread=0.3)
    stranger = table_of(values, np.where(identities == 3, -1, identities))
    assert separation(stranger, "core").purity == separation(stranger[stranger["identity"] >= 0], "core").purity
    lonely = separation(table_of(values, np.zeros(len(values), int)), "core")
    assert np.isnan(lonely.purity.value)
    assert lonely.purity.clips == 0


def test_the_interval_holds_the_mean_of_the_world_about_95_times_out_of_100():
    rng = np.random.default_rng(0)
    worlds = [mean_over_clips(rng.beta(6, 2, 20), seed=i) for i in range(200)]
    assert 0.88 <= np.mean([one.low <= 0.75 <= one.high for one in worlds]) <= 0.99


def test_few_clips_have_no_interval_and_more_clips_a_narrower_one():
    rng = np.random.default_rng(0)
    assert mean_over_clips(rng.normal(size=4)).low is None
    few, many = (mean_over_clips(rng.normal(size=count)) for count in (10, 400))
    assert many.high - many.low < few.high - few.low
    assert mean_over_clips(np.array([1.0, np.nan, 2.0])).value == 1.5


def test_a_difference_clip_by_clip_is_sharper_than_two_intervals():
    rng = np.random.default_rng(0)
    tables = []
    for clip in range(8):
        values, identities = clumps(seed=clip, spread=rng.uniform(0.3, 1.2))
        tables.append(table_of(values, identities, clips=f"clip {clip}"))
    first = separation(pd.concat(tables, ignore_index=True), "core")
    second = type(first)("other", first.clips, first.silhouettes - 0.05, first.purities - 0.1)
    _, gain = difference(first, second)
    assert gain.value == pytest.approx(0.1)
    assert gain.high - gain.low < 1e-9 < first.purity.high - first.purity.low
    with pytest.raises(ValueError, match="same clips"):
        difference(first, separation(tables[0], "core"))


def test_where_there_are_too_few_neighbours_the_rest_is_left_empty():
    numbers, likeness = nearest(np.eye(3), k=4)
    assert (numbers[:, 2:] == -1).all()
    assert np.isnan(likeness[:, 2:]).all()
    assert sorted(numbers[0, :2].tolist()) == [1, 2]


def test_frames_are_associated_as_the_model_does_it():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 8))
    table = table_of(values, np.tile(np.arange(6), 2), frames=np.repeat([3, 4], 6))
    found = associate(table, "a", 3, 4, "core")
    order = match(from_numpy(values[None, :6]), from_numpy(values[None, 6:]))[0]
    assert found.pairs.tolist() == [[i, int(j)] for i, j in enumerate(order)]
    assert found.similarity[2, 3] == pytest.approx(cosine(values[2], values[9]), abs=1e-5)
    np.testing.assert_array_equal(vectors(table.loc[found.columns], "core"), values[6:].astype(np.float32))
    with pytest.raises(ValueError, match="in which a track is visible"):
        associate(table, "a", 3, 9)
