"""A clip with its tracks: play, scrub, choose a track, see when each one is visible."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from widgets import runs
from widgets.colours import mark, rgb
from widgets.still import INK, LINE, PAPER, QUIET, Still, image, label, shape_at
from widgets.view import View, as_array, picture, script, texts, whole_numbers

MOST_TRACKS = 254
_LARGEST_SIDE = 960
_STILL_WIDTH, _LANE, _NAMES = 420, 20, 110


class TrackPlayer(View):
    """A player of frames and tracks; choosing a track selects its rows, and selected rows bring out their tracks.

    Each track has its number in the picture and beside its name: colours come again after the seventh.

    ``frames``: T pictures [H, W, 3] of uint8, an array or anything with a length that gives one by its number; they are
    asked for one at a time. ``masks``, as large as the frames: label maps [T, H, W] of whole numbers (0 nothing, n the
    n-th track), which are not copied, or for each of the N tracks T run-length masks (with ``height``, ``width``,
    ``counts``) or None where it is not visible; of overlapping ones the first track lies on top. ``names`` [N];
    ``numbers`` [N]: the tracks' own, no two alike, 1 to N by default; keys 0 to 9 choose by them; ``groups`` [N]:
    tracks of one group have one colour; ``rows`` [N, T]: the number of the row each track has in each frame, -1 for
    none; by default T n + t where it is visible. ``frame``: the one that is shown.

    Example::

        frames = np.zeros((10, 60, 80, 3), np.uint8)
        masks = np.zeros((10, 60, 80), int)
        for t in range(10):
            masks[t, 20:40, 4 * t : 4 * t + 20] = 1
        TrackPlayer(frames, masks, names=["a square"])
    """

    _esm = script("track_player.js")
    _tracks = traitlets.List().tag(sync=True)
    _visible = traitlets.Bytes().tag(sync=True)
    _rows = traitlets.Bytes().tag(sync=True)
    _size = traitlets.List().tag(sync=True)
    length = traitlets.Int().tag(sync=True)
    frame = traitlets.Int().tag(sync=True)
    fps = traitlets.Float(10.0).tag(sync=True)

    def __init__(
        self,
        frames: Any,
        masks: Any = None,
        *,
        names: Sequence[str] | None = None,
        numbers: Any = None,
        groups: Any = None,
        rows: Any = None,
        **traits: Any,
    ) -> None:
        if not (hasattr(frames, "__len__") and hasattr(frames, "__getitem__")) or isinstance(frames, str | Mapping):
            raise ValueError(f"expected frames as an array or a list of pictures, got {type(frames).__name__}")
        if not len(frames):
            raise ValueError("expected at least one frame, got none")
        height, width = self._full = picture(frames[0]).shape[:2]
        self._frames, self._masks = frames, _Masks(masks, len(frames), self._full)
        self._step = -(-max(height, width) // _LARGEST_SIDE)
        count, length = self._masks.visible.shape
        own = _numbers(numbers, count)
        labels = [f"track {n}" for n in own] if names is None else texts(names, count, "names of tracks")
        places = np.arange(count) if groups is None else whole_numbers(groups, count, "groups")
        at = _row_numbers(rows, self._masks.visible)
        small = (-(-height // self._step), -(-width // self._step))
        super().__init__(length=length, **traits)
        self._size = list(small)
        self._tracks = [
            {"number": number, "name": name, **mark(int(group))._asdict()}
            for number, name, group in zip(own, labels, places, strict=True)
        ]
        self._visible = self._masks.visible.astype(np.uint8).tobytes()
        self._rows = at.astype("<i4").tobytes()
        self._answer("frame", self._picture)

    @traitlets.validate("frame")
    def _in_the_clip(self, proposal: Any) -> int:
        if self.length and not 0 <= proposal["value"] < self.length:
            raise ValueError(f"expected a frame between 0 and {self.length - 1}, got {proposal['value']}")
        return proposal["value"]

    @property
    def selected(self) -> list[int]:
        """Which tracks are selected, by their places."""
        numbers = np.frombuffer(self._rows, "<i4").reshape(-1, self.length)
        return np.flatnonzero(np.isin(numbers, [row for row in self.selection if row >= 0]).any(axis=1)).tolist()

    def still(self) -> Still:
        """The frame that is shown with its tracks, and when each of them is visible."""
        pixels, labels = self._shown(self.frame)
        colours = np.array([(0, 0, 0), *(rgb(track["colour"]) for track in self._tracks)], np.uint8)
        height = round((_STILL_WIDTH - 16) * pixels.shape[0] / pixels.shape[1])
        chosen = self.selected or list(range(len(self._tracks)))
        opacity = np.array([0.0, *(0.45 if n in chosen else 0.08 for n in range(len(self._tracks)))])
        parts = [image(_overlaid(pixels, labels, colours, opacity), 8, 0, _STILL_WIDTH - 16, height)]
        numbers = [track["number"] for track in self._tracks]
        parts += _written(numbers, labels, 8, 0, (_STILL_WIDTH - 16) / pixels.shape[1])
        parts += self._lanes(height + 8)
        full = height + 8 + _LANE * len(self._tracks) + 16
        return Still(_STILL_WIDTH, full, parts, title=self.title, note=self.note)

    def _lanes(self, top: float) -> list[str]:
        parts, room = [], _STILL_WIDTH - _NAMES - 12
        chosen = self.selected
        for n, (track, visible) in enumerate(zip(self._tracks, self._masks.visible, strict=True)):
            y = top + _LANE * n
            one = mark(0)._replace(colour=track["colour"], shape=track["shape"])
            parts += [shape_at(one, 18, y + 9), label(28, y + 13, f"{track['number']} · {track['name']}"[:18], 11)]
            edges = np.flatnonzero(np.diff(np.concatenate([[0], visible.astype(np.int8), [0]])))
            faint = 0.3 if chosen and n not in chosen else 1
            for first, after in edges.reshape(-1, 2):
                place = (
                    f'x="{_NAMES + room * first / self.length:.1f}" width="{room * (after - first) / self.length:.1f}"'
                )
                parts.append(f'<rect {place} y="{y + 3}" height="12" rx="2" fill="{one.colour}" opacity="{faint}"/>')
        x = _NAMES + room * (self.frame + 0.5) / self.length
        bottom = top + _LANE * len(self._tracks)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{QUIET}" stroke-width="1.5"/>')
        parts.append(f'<line x1="{_NAMES}" x2="{_NAMES + room}" y1="{bottom}" y2="{bottom}" stroke="{LINE}"/>')
        return [*parts, label(_NAMES, bottom + 13, f"frame {self.frame} of 0 to {self.length - 1}", 10, colour=QUIET)]

    def _picture(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        pixels, labels = self._shown(int(question["t"]))
        return {}, [pixels.tobytes(), labels.tobytes()]

    def _shown(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """A frame and its label map, small enough to be sent."""
        pixels = picture(self._frames[t])
        if pixels.shape[:2] != self._full:
            sizes = f"frame {t} with {_size(pixels.shape)} pixels and the first with {_size(self._full)}"
            raise ValueError(f"expected frames of one size, got {sizes}")
        labels = self._masks.labels(t)
        step = self._step
        return np.ascontiguousarray(pixels[::step, ::step]), np.ascontiguousarray(labels[::step, ::step])


def _numbers(numbers: Any, count: int) -> list[int]:
    """The tracks' numbers, 1 to N if none are given."""
    if numbers is None:
        return list(range(1, count + 1))
    own = whole_numbers(numbers, count, "numbers of tracks").tolist()
    if len(set(own)) < count:
        raise ValueError(f"expected {count} different numbers of tracks, got {len(set(own))}")
    return own


def _row_numbers(rows: Any, visible: np.ndarray) -> np.ndarray:
    """The row of each track in each frame; if none are given, counted track by track where it is visible."""
    if rows is None:
        return np.where(visible, np.arange(visible.size).reshape(visible.shape), -1)
    at, (count, length) = as_array(rows, "rows [N, T]"), visible.shape
    if at.shape != (count, length) or at.dtype.kind not in "iu":
        raise ValueError(f"expected rows as whole numbers [{count}, {length}], got {at.dtype} {at.shape}")
    if at.max(initial=0) >= 2**31:
        raise ValueError(f"expected rows below {2**31:,}, got {at.max():,}")
    return at


class _Masks:
    """Label maps or run-length masks, asked for frame by frame."""

    def __init__(self, masks: Any, length: int, size: tuple[int, int]) -> None:
        self._size = size
        self._maps, self._tracks = None, []
        if isinstance(masks, np.ndarray):
            self._maps = _checked_maps(masks, length, size)
            count = int(masks.max(initial=0))
        else:
            if not isinstance(masks, Sequence | None) or isinstance(masks, str):
                raise ValueError(f"expected masks as label maps or a list for each track, got {type(masks).__name__}")
            self._tracks = [_checked_track(track, length, size) for track in masks or ()]
            count = len(self._tracks)
        if count > MOST_TRACKS:
            raise ValueError(f"expected at most {MOST_TRACKS} tracks, got {count}")
        self.visible = np.zeros((count, length), bool)
        for t in range(length):
            self.visible[:, t] = self._seen(t, count)

    def _seen(self, t: int, count: int) -> np.ndarray:
        if self._maps is None:
            return np.array([track[t] is not None for track in self._tracks], bool)
        return np.bincount(self._maps[t].ravel().astype(np.intp), minlength=count + 1)[1:] > 0

    def labels(self, t: int) -> np.ndarray:
        """Which track each pixel belongs to, uint8 [H, W]: 0 none, n the n-th."""
        if self._maps is not None:
            return self._maps[t].astype(np.uint8)
        labels = np.zeros(self._size, np.uint8)
        for n, track in reversed(list(enumerate(self._tracks))):
            if track[t] is not None:
                labels[runs.decode(track[t])] = n + 1
        return labels


def _checked_maps(maps: np.ndarray, length: int, size: tuple[int, int]) -> np.ndarray:
    if maps.ndim != 3 or len(maps) != length or maps.dtype.kind not in "iub" or maps.min(initial=0) < 0:
        raise ValueError(
            f"expected label maps [{length}, H, W] of whole numbers from 0 on, got {maps.dtype} of shape {maps.shape}"
        )
    _check_size(maps.shape[1:], size)
    return maps


def _checked_track(track: Any, length: int, size: tuple[int, int]) -> list[Any]:
    if not isinstance(track, Sequence):
        raise ValueError(f"expected a list of masks for each track, got {type(track).__name__}")
    if len(track) != length:
        raise ValueError(f"expected a mask or None for each of {length} frames, got {len(track)}")
    for mask in track:
        if mask is None:
            continue
        if not all(hasattr(mask, name) for name in ("height", "width", "counts")):
            raise ValueError(f"expected run-length masks with height, width and counts, got {_kind(mask)}")
        _check_size((mask.height, mask.width), size)
    return list(track)


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_size(got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(got) != tuple(expected):
        raise ValueError(f"expected masks of {_size(expected)} pixels as the frames, got {_size(got)}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _overlaid(pixels: np.ndarray, labels: np.ndarray, colours: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Colours over a picture, each as strong as its share, and outlines twice as strong."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    opacity = shares[labels]
    opacity[edge] = np.minimum(2.5 * opacity[edge], 1)
    return (pixels * (1 - opacity[..., None]) + colours[labels] * opacity[..., None]).astype(np.uint8)


def _written(numbers: Sequence[int], labels: np.ndarray, left: float, top: float, scale: float) -> list[str]:
    """The number of each track, on the pixel of it that is nearest to the middle of all of them."""
    parts = []
    for n in np.unique(labels[labels > 0]).tolist():
        seen = np.argwhere(labels == n)
        y, x = seen[np.square(seen - seen.mean(axis=0)).sum(axis=1).argmin()]
        text = label(left + scale * (x + 0.5), top + scale * (y + 0.5) + 4, str(numbers[n - 1]), 11, "middle", PAPER)
        parts.append(text.replace("<text", f'<text paint-order="stroke" stroke="{INK}" stroke-width="3"', 1))
    return parts
