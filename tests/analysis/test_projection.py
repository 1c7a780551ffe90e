import numpy as np
import pytest
from made_up import clumps
from scipy.spatial.distance import pdist

from cavis.analysis import Projection, pca, tsne


def test_a_map_depends_on_the_seed_and_nothing_else():
    vectors, _ = clumps(frames=12)
    first, second = tsne(vectors, seed=3), tsne(vectors.copy(), seed=3)
    np.testing.assert_array_equal(first.points, second.points)
    assert first.points.dtype == np.float32


def test_neighbours_stay_neighbours():
    vectors, identities = clumps(frames=15, spread=0.05)
    points = tsne(vectors, perplexity=8).points
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (identities[distance.argmin(1)] == identities).all()


def test_for_cosine_the_length_of_a_vector_does_not_matter():
    vectors, _ = clumps()
    longer = vectors * np.random.default_rng(1).uniform(0.5, 3, (len(vectors), 1))
    np.testing.assert_allclose(pca(vectors).points, pca(longer).points, atol=1e-5)
    assert np.abs(pca(vectors, metric="euclidean").points - pca(longer, metric="euclidean").points).max() > 0.1


def test_pca_is_the_singular_value_decomposition():
    vectors, _ = clumps(spread=0.6)
    found = pca(vectors, metric="euclidean")
    left, sizes, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.points), np.abs(left[:, :2] * sizes[:2]), atol=1e-5)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-5)


def test_a_map_turned_to_another_keeps_all_distances_and_lies_on_it():
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]) @ np.diag((1, -1))
    other = Projection((points @ turn + 5).astype(np.float32), "tsne", "core", "cosine")
    turned = Projection(points, "tsne", "core", "cosine").turned_to(other)
    np.testing.assert_allclose(pdist(turned.points), pdist(points), rtol=1e-4)
    np.testing.assert_allclose(turned.points, other.points - other.points.mean(0), atol=1e-4)


def test_the_perplexity_that_was_used_is_told():
    vectors, _ = clumps(frames=4)
    found = tsne(vectors, perplexity=30, seed=5, layer="core")
    assert found.perplexity == pytest.approx(11 / 3)
    for word in ("t-SNE", "layer core", "perplexity 3.66667", "seed 5", "metric cosine", "12 points", "scikit-learn"):
        assert word in found.caption


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4)), np.ones((3, 4)), np.ones((9, 1)), np.ones(9), np.full((9, 4), np.nan)]
)
def test_hostile_arrays_are_refused_with_a_sentence(bad):
    with pytest.raises(ValueError, match=r"^expected "):
        tsne(bad)


def test_hostile_settings_are_refused_with_a_sentence():
    vectors, _ = clumps()
    for settings in ({"perplexity": 0.5}, {"perplexity": float("nan")}, {"metric": "taxi"}):
        with pytest.raises(ValueError, match=r"^expected "):
            tsne(vectors, **settings)


def test_rows_that_are_all_alike_still_make_a_map():
    assert np.isfinite(tsne(np.ones((9, 4))).points).all()
    assert np.isfinite(pca(np.ones((9, 4))).points).all()
