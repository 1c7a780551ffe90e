"""Embeddings as points in the plane: PCA and t-SNE, the same for the same seed.

A map is a picture, not a measurement: see :mod:`cavis.analysis.separation` for numbers, which use all dimensions.
"""

from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from cavis.analysis.collect import unit_length

Metric = Literal["cosine", "euclidean"]
_SMALLEST_PERPLEXITY = 1.0


@dataclass(frozen=True)
class Projection:
    """Points in the plane, and how they came there."""

    points: Float[np.ndarray, "N 2"] = field(repr=False)
    method: Literal["pca", "tsne"]
    layer: str
    """Which embeddings these are."""
    metric: Metric
    seed: int | None = None
    perplexity: float | None = None
    """The one that was used, which may be smaller than the one that was asked for."""
    explained: tuple[float, float] | None = None
    """Share of the variance along either axis, 0 ... 1 (PCA)."""

    @property
    def caption(self) -> str:
        """All that is needed to make the picture again, in one line."""
        how = {"layer": self.layer, "metric": self.metric, "perplexity": self.perplexity, "seed": self.seed}
        settings = [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in how.items()
        ]
        known = [text for text, value in zip(settings, how.values(), strict=True) if value is not None]
        versions = [f"{name} {version(name)}" for name in ("cavis", "scikit-learn")]
        return " · ".join(
            ({"pca": "PCA", "tsne": "t-SNE"}[self.method], *known, f"{len(self.points)} points", *versions)
        )

    def turned_to(self, other: "Projection") -> "Projection":
        """The same map, turned or mirrored (nothing else) to lie on another one of the same rows as well as it can."""
        if self.points.shape != other.points.shape:
            raise ValueError(f"expected two maps of the same rows, got {len(self.points)} and {len(other.points)}")
        left, _, right = np.linalg.svd(_centred(self.points).T @ _centred(other.points))
        return replace(self, points=(_centred(self.points) @ (left @ right)).astype(np.float32))


def pca(vectors: Float[np.ndarray, "N D"], *, layer: str = "", metric: Metric = "cosine") -> Projection:
    """The two directions of greatest variance; for the cosine metric, of vectors brought to length 1."""
    values = _checked(vectors, metric, least=2)
    model = PCA(n_components=2, svd_solver="full")
    with threadpool_limits(1), np.errstate(invalid="ignore"):  # rows that are all alike have no variance to share
        points = model.fit_transform(values)
    first, second = (float(share) for share in np.nan_to_num(model.explained_variance_ratio_))
    return Projection(points.astype(np.float32), "pca", layer, metric, explained=(first, second))


def tsne(
    vectors: Float[np.ndarray, "N D"],
    *,
    perplexity: float = 30.0,
    seed: int = 0,
    metric: Metric = "cosine",
    layer: str = "",
) -> Projection:
    """Van der Maaten and Hinton's map (2008): neighbours stay neighbours, and little else means anything.

    The perplexity is about how many neighbours each row has; it is brought down to a third of the rows where there are
    few. A ValueError for fewer than four rows. Starts from PCA, on one thread: the result depends on the seed only.
    """
    values = _checked(vectors, metric, least=4)
    if not perplexity >= _SMALLEST_PERPLEXITY:
        raise ValueError(f"expected a perplexity of at least {_SMALLEST_PERPLEXITY:g}, got {perplexity}")
    used = float(min(perplexity, (len(values) - 1) / 3))
    with threadpool_limits(1):
        start: Any = _start(values, seed)  # its type is said to be text
        model = TSNE(n_components=2, perplexity=used, init=start, metric=metric, random_state=seed, n_jobs=1)
        points = model.fit_transform(values)
    return Projection(points.astype(np.float32), "tsne", layer, metric, seed, used)


def _start(values: Float[np.ndarray, "N D"], seed: int) -> Float[np.ndarray, "N 2"]:
    """Where t-SNE starts from: a small PCA, with a grain of chance, without which rows that are all alike crash it."""
    with np.errstate(invalid="ignore"):  # no variance to share, as in pca
        points = PCA(n_components=2, svd_solver="full").fit_transform(values)
    grain = np.random.default_rng(seed).normal(size=points.shape)
    return (1e-4 * (points / max(float(points[:, 0].std()), 1e-12) + 1e-3 * grain)).astype(np.float32)


def _checked(vectors: Float[np.ndarray, "N D"], metric: str, least: int) -> Float[np.ndarray, "N D"]:
    """Finite vectors, and of length 1 where only their direction counts."""
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"expected the metric cosine or euclidean, got {metric!r}")
    if vectors.ndim != 2 or len(vectors) < least or vectors.shape[1] < 2:
        raise ValueError(f"expected at least {least} vectors of 2 or more numbers, got an array of {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"expected finite vectors, got {int((~np.isfinite(vectors)).any(1).sum())} that are not")
    return unit_length(vectors) if metric == "cosine" else vectors


def _centred(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    return points - points.mean(axis=0)
