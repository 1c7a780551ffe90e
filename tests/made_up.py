"""Embeddings that nobody has computed."""

import numpy as np
import pandas as pd

from cavis.analysis.collect import COLUMNS


def table_of(vectors: np.ndarray, identities, frames=None, clips=None, categories=None) -> pd.DataFrame:
    """A table of made-up embeddings; context-aware ones are the core ones twice."""
    count = len(vectors)
    rows = pd.DataFrame({name: [0] * count for name in COLUMNS})
    rows["clip"] = "a" if clips is None else clips
    rows["identity"] = identities
    rows["frame"] = np.arange(count) if frames is None else frames
    rows["true_category"] = "cat" if categories is None else categories
    rows["core"] = list(vectors.astype(np.float32))
    rows["context_aware"] = list(np.concatenate([vectors, vectors], axis=1).astype(np.float32))
    return rows


def clumps(seed: int = 0, objects: int = 3, frames: int = 8, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of some objects, each around a direction of its own, and whose they are."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(objects), frames)
    return rng.normal(size=(objects, 8))[identities] + spread * rng.normal(size=(len(identities), 8)), identities
