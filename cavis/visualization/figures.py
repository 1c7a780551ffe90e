"""Figures of whole results: when each track is visible, and what it looks like."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import UInt8
from PIL import Image

from cavis import rle
from cavis.records import Track, VideoResult
from cavis.visualization.overlay import caption
from cavis.visualization.palette import hex_colour

_LANE = 26
"""Pixels a track takes in the timeline's height."""
_BACKGROUND = (24, 24, 27)
_MARGIN = 0.12
"""What a thumbnail shows around the instance, as a share of its larger side."""


def timeline(result: VideoResult, position: float | None = None) -> go.Figure:
    """A lane for each track, in its colour, filled while it is visible; the highest score on top.

    It begins with the first frame, whenever that is. ``position``: a moment (seconds) to mark with a line. Only plain
    lists, bars and lines: plotly.js 2 and 3 draw it.
    """
    figure = go.Figure()
    ends = _frame_ends(result)
    for track in result.tracks:
        figure.add_trace(_lane(result, track, ends))
    names = [caption(result, track, score=False) for track in result.tracks]
    if position is not None and names:
        figure.add_trace(_marker(position, names))
    figure.update_layout(
        barmode="overlay",
        bargap=0.3,
        showlegend=False,
        height=90 + _LANE * max(1, len(names)),
        margin={"l": 8, "r": 8, "t": 8, "b": 40},
        template="plotly_white",
    )
    shown = [float(result.timestamps[0]), float(ends[-1])] if len(result) else [0.0, 1.0]
    figure.update_xaxes(title_text="seconds", range=shown)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    if not names:
        figure.update_yaxes(visible=False)
        figure.add_annotation(text="No instance was found.", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def spans(track: Track) -> list[tuple[int, int]]:
    """The runs of frames in which a track is visible, as (first, last), both included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], track.visible, [False]]).astype(np.int8)))
    return [(int(first), int(after) - 1) for first, after in edges.reshape(-1, 2)]


def clearest_frame(track: Track) -> int:
    """The frame in which the track covers most pixels; a ValueError for one that is never visible."""
    if not track.visible.any():
        raise ValueError(f"expected a track that is visible in some frame, got track {track.id}, which never is")
    return int(np.argmax([0 if mask is None else rle.area(mask) for mask in track.masks]))


def thumbnail(
    frame: UInt8[np.ndarray, "H W 3"], track: Track, t: int, size: int = 96
) -> UInt8[np.ndarray, "size size 3"]:
    """The instance as it looks in frame ``t``, with a margin, fitted into a square of ``size`` pixels.

    A ValueError if the track is not visible in that frame, or if the frame's size is not that of the masks.
    """
    mask = track.masks[t]
    if mask is None or rle.area(mask) == 0:
        raise ValueError(f"expected a frame in which track {track.id} is visible, got frame {t}")
    height, width = frame.shape[:2]
    if (height, width) != (mask.height, mask.width):
        raise ValueError(f"expected a frame of {mask.height} x {mask.width} pixels, got {height} x {width}")
    left, top, box_width, box_height = rle.box(mask)
    margin = max(2.0, _MARGIN * max(box_width, box_height))
    x0, y0 = int(max(0, left - margin)), int(max(0, top - margin))
    x1, y1 = int(min(width, left + box_width + margin)), int(min(height, top + box_height + margin))
    scale = size / max(x1 - x0, y1 - y0)
    fitted = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    crop = Image.fromarray(frame[y0:y1, x0:x1]).resize(fitted, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), _BACKGROUND)
    square.paste(crop, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return np.asarray(square)


def _frame_ends(result: VideoResult) -> list[float]:
    """When each frame gives way to the next one (seconds); the last one stays as long as the one before it."""
    times = [float(moment) for moment in result.timestamps]
    if len(times) < 2:
        return [moment + 0.1 for moment in times]
    return [*times[1:], 2 * times[-1] - times[-2]]


def _lane(result: VideoResult, track: Track, ends: list[float]) -> go.Bar:
    runs = spans(track)
    starts = [float(result.timestamps[first]) for first, _ in runs]
    lengths = [ends[last] - start for start, (_, last) in zip(starts, runs, strict=True)]
    name = caption(result, track, score=False)
    texts = [
        f"{caption(result, track)}<br>frames {first} to {last}, {start:.2f} s to {start + length:.2f} s"
        for (first, last), start, length in zip(runs, starts, lengths, strict=True)
    ]
    return go.Bar(
        orientation="h",
        y=[name] * len(runs),
        base=starts,
        x=lengths,
        name=name,
        marker={"color": hex_colour(track.id), "line": {"width": 0}},
        hovertext=texts,
        hoverinfo="text",
    )


def _marker(position: float, names: list[str]) -> go.Scatter:
    return go.Scatter(
        x=[position] * len(names), y=names, mode="lines", line={"color": "#dc2626", "width": 2}, hoverinfo="skip"
    )
