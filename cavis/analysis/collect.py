"""The embeddings of a model over clips, as a table: one row for each track and frame in which it is visible.

Columns: ``clip``, ``frame``, ``time`` (seconds), ``track``, ``category``, ``score`` (of the track, 0 ... 1), ``x``,
``y``, ``width``, ``height`` (of the box, in pixels), ``area`` (pixels), ``identity`` (the annotated object whose pixels
the row shows; -1: none, or nothing is annotated), ``true_category`` (of that object), ``overlap`` (IoU with it),
``core`` (Q̂, C numbers) and ``context_aware`` ([Q̂ ; Q], 2C numbers; Q̂ alone in a model without context). The row's
number is the table's index. ``table.attrs`` says how it came about: model, seed, versions.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from cavis import rle
from cavis.analysis.footage import Footage, Truth
from cavis.checkpoints.files import write_atomically
from cavis.checkpoints.hub import ReadyModel
from cavis.inference.choose import predictor_for
from cavis.inference.predictor import Watch
from cavis.records import Track, VideoResult

Layer = Literal["core", "context_embedding", "context_aware"]
"""Which embedding: Q̂ (Eq. 5), Q (Eq. 7), or both side by side, which is what frames are associated by."""
LAYERS: tuple[Layer, ...] = get_args(Layer)

NOBODY = -1
"""The identity of a row that shows no annotated object."""
SAME = 0.5
"""Overlap (IoU) from which a row shows an annotated object."""

_KINDS: dict[str, str] = {
    **dict.fromkeys(("clip", "category", "true_category"), "str"),
    **dict.fromkeys(("frame", "track", "area", "identity"), "int64"),
    **dict.fromkeys(("time", "score", "x", "y", "width", "height", "overlap"), "float64"),
    **dict.fromkeys(("core", "context_aware"), "object"),
}
COLUMNS = (
    *("clip", "frame", "time", "track", "category", "score", "x", "y", "width", "height", "area"),
    *("identity", "true_category", "overlap", "core", "context_aware"),
)
_PACKAGES = ("cavis", "torch", "transformers", "numpy", "scikit-learn", "pandas", "pyarrow")


def collect(
    ready: ReadyModel,
    clips: Iterable[Footage],
    *,
    min_score: float = 0.3,
    seed: int | None = None,
    watch: Callable[[Footage], Watch | None] | None = None,
) -> pd.DataFrame:
    """Track every clip and tabulate the embeddings of the tracks that score at least ``min_score``.

    ``seed`` is noted, nothing else: what the clips were drawn with. ``watch`` gives each clip its watcher. A ValueError
    for two clips of one name.
    """
    footage = list(clips)
    if len({clip.name for clip in footage}) < len(footage):
        names = sorted(clip.name for clip in footage)
        twice = next(name for name, following in pairwise(names) if name == following)
        raise ValueError(f"expected clips of different names, got {twice!r} twice")
    predictor = predictor_for(ready)
    tables = []
    for clip in footage:
        with clip.open() as source:
            result = predictor.run(source, watch=watch(clip) if watch else None)
        tables.append(tabulate(result.filter(min_score), clip))
    table = pd.concat(tables, ignore_index=True) if tables else _frame([])
    table.attrs.update(provenance(ready, min_score=min_score, seed=seed))
    return table


def tabulate(result: VideoResult, clip: Footage) -> pd.DataFrame:
    """The rows of one tracked clip, track after track."""
    identities = _identities(result, clip.truth)
    rows = [
        _row(result, track, t, clip.name, identities[track.id, t])
        for track in result.tracks
        for t in np.flatnonzero(track.visible).tolist()
    ]
    return _frame(rows)


def vectors(table: pd.DataFrame, layer: Layer) -> Float[np.ndarray, "N D"]:
    """The embeddings of every row, float32; a ValueError for a layer the model does not have."""
    if layer not in LAYERS:
        raise ValueError(f"expected a layer out of {', '.join(LAYERS)}; got {layer!r}")
    if table.empty:
        return np.zeros((0, 0), dtype=np.float32)
    core = np.stack(list(table["core"])).astype(np.float32)
    if layer == "core":
        return core
    both = np.stack(list(table["context_aware"])).astype(np.float32)
    if both.shape == core.shape:
        raise ValueError(f"expected a model with context for the layer {layer!r}, got one that has core features only")
    return both if layer == "context_aware" else both[:, core.shape[1] :]


def row_numbers(table: pd.DataFrame, clip: str, tracks: Sequence[int], frames: int) -> Int[np.ndarray, "N T"]:
    """Which row of the table each track has in each frame of a clip; -1 where it has none."""
    numbers = np.full((len(tracks), frames), -1, dtype=np.int64)
    places = {track: place for place, track in enumerate(tracks)}
    part = rows_where(table, column(table, "clip") == clip)
    for number, track, frame in zip(part.index, column(part, "track"), column(part, "frame"), strict=True):
        if track in places:
            numbers[places[track], frame] = number
    return numbers


def sightings(table: pd.DataFrame, clip: str) -> pd.DataFrame:
    """The rows of a clip that show a true object: one for each object in each frame, that of the surest track.

    They keep their numbers. The tables of two models are compared object by object with them.
    """
    shown = rows_where(table, (column(table, "clip") == clip) & (column(table, "identity") != NOBODY))
    return shown.sort_values("score", kind="stable").drop_duplicates(["identity", "frame"], keep="last")


def column(table: pd.DataFrame, name: str) -> Shaped[np.ndarray, "N"]:
    """One column as an array."""
    return np.asarray(table[name])


def rows_where(table: pd.DataFrame, keep: Bool[np.ndarray, "N"]) -> pd.DataFrame:
    """Some of the rows; they keep their numbers."""
    return table.take(np.flatnonzero(keep))


def unit_length(values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Vectors brought to length 1, so that products are cosines; zeros stay zeros."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def provenance(ready: ReadyModel, **more: Any) -> dict[str, Any]:
    """What a table's reader has to know to make it again: model, preset, stage, versions, and ``more``."""
    about = ready.about
    versions = {name: version(name) for name in _PACKAGES}
    return {"model": about.name, "preset": about.preset, "stage": about.stage, **more, "versions": versions}


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, its attributes with it; a file that is there is replaced when all is written."""
    write_atomically(path, table.to_parquet)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that :func:`write_table` wrote; a ValueError for another file."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"expected a table of embeddings (Parquet), but {path} cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"expected the columns of a table of embeddings, but {path} lacks {', '.join(missing)}")
    return table


def _frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_KINDS)


class _Shown(NamedTuple):
    """The annotated object a row shows."""

    identity: int = NOBODY
    category: str = ""
    overlap: float = 0.0


def _row(result: VideoResult, track: Track, t: int, clip: str, shown: _Shown) -> tuple:
    mask = track.masks[t]
    assert mask is not None
    place = (clip, t, result.timestamps[t], track.id, result.category(track), track.score)
    features = (track.core[t].astype(np.float32), track.context_aware[t].astype(np.float32))
    return (*place, *track.boxes[t], rle.area(mask), *shown, *features)


def _identities(result: VideoResult, truth: Callable[[int], Truth] | None) -> dict[tuple[int, int], _Shown]:
    """What each track shows in each frame in which it is visible."""
    shown = {}
    for t in range(len(result)):
        tracks = [track for track in result.tracks if track.masks[t] is not None]
        known = truth(t) if truth is not None and tracks else None
        if known is None or not known.ids:
            shown |= {(track.id, t): _Shown() for track in tracks}
            continue
        masks = np.stack([rle.decode(track.masks[t]) for track in tracks])  # pyright: ignore[reportArgumentType]
        for track, row in zip(tracks, _overlaps(masks, known.masks), strict=True):
            best = int(row.argmax())
            found = _Shown(known.ids[best], known.categories[best], float(row[best]))
            shown[track.id, t] = found if found.overlap >= SAME else _Shown()
    return shown


def _overlaps(first: Bool[np.ndarray, "P H W"], second: Bool[np.ndarray, "N H W"]) -> Float[np.ndarray, "P N"]:
    """IoU of every pair of masks; 0 for two empty ones."""
    left, right = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (first, second))
    shared = left @ right.T
    union = left.sum(1)[:, None] + right.sum(1) - shared
    return shared / np.maximum(union, 1)
