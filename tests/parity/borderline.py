"""Mask logits next to zero: which side they fall on hangs on the order of sums, and what follows hangs on the side.

A mask logit is cut at zero twice: where a query may look next, and where the boundary of an instance is. Two programs
that agree to rounding can cut one pixel differently, and all that follows then differs by far more than rounding.
Tolerances are not widened for it. Instead, where a frame is over tolerance, its logits within ``NEAR`` of zero are put
on the other side, one or two at a time, until what follows is what was stored, within the tolerance; logits further
away are never touched. What decides nothing stays as it was, and an error that is one stays one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch

from cavis.model.pixel_decoder import PixelFeatures
from cavis.model.segmenter import Segmenter

NEAR = 3e-4
"""Three times the largest change of a mask logit that rounding alone made in the released code."""
FLIPS = 2
"""How many logits of one frame may lie on the other side."""
LOOKS = 60
"""How often a frame is looked at before it counts as different."""


class Place(NamedTuple):
    """One mask logit that is cut at zero."""

    frame: int
    cut: int
    """The layer of the query decoder whose attention it bounds; after the last one, the boundary."""
    index: int
    """Into queries, rows and columns, flattened."""


Sides = dict[Place, int]
"""+1 or -1 for every place that is near zero."""


class Look(NamedTuple):
    """What a segmenter makes of the features of some frames."""

    steps: tuple[torch.Tensor, ...]
    masks: torch.Tensor
    context: torch.Tensor


class Cuts:
    """Holds a segmenter's logits near zero on given sides while the context lasts; ``met`` are those it came across."""

    def __init__(self, segmenter: Segmenter, sides: Mapping[Place, int], first: int = 0) -> None:
        self.segmenter, self.sides, self.met = segmenter, sides, {}
        self._next, self._first, self._cut, self._deciding = first, first, 0, False

    def hold(self, logits: torch.Tensor, cut: int) -> torch.Tensor:
        """The logits [B Q h w], those near zero on their sides."""
        held = logits.flatten(1).clone()
        for b, index in (held.abs() < NEAR).nonzero().tolist():
            place, value = Place(self._first + b, cut, index), held[b, index].item()
            side = self.sides.get(place, 1 if value > 0 else -1)
            self.met[place] = side
            if side * value < 0:
                held[b, index] = -value
        return held.view(logits.shape)

    def __enter__(self) -> Self:
        decoder, context = self.segmenter.query_decoder, self.segmenter.context_pooling
        predict = decoder.heads.masks

        def masks(core, features):
            logits = predict(core, features)
            if not self._deciding:
                return logits
            self._cut += 1
            return self.hold(logits, self._cut - 1)

        def begin(_module, inputs):
            self._first = self._next
            self._next += len(inputs[0].mask_features)
            self._cut, self._deciding = 0, True

        def end(*_):
            self._deciding = False

        def before_the_boundary(_module, inputs):
            return self.hold(inputs[0], len(decoder.layers)), *inputs[1:]

        self._own = vars(decoder.heads).get("masks")
        decoder.heads.masks = masks
        self._hooks = (
            decoder.register_forward_pre_hook(begin),
            decoder.register_forward_hook(end),
            context.register_forward_pre_hook(before_the_boundary),
        )
        return self

    def __exit__(self, *_: object) -> None:
        del self.segmenter.query_decoder.heads.masks
        if self._own is not None:
            self.segmenter.query_decoder.heads.masks = self._own
        for hook in self._hooks:
            hook.remove()


@torch.no_grad()
def look(segmenter: Segmenter, features: PixelFeatures) -> Look:
    """From the features of frames to what the cuts decide."""
    decoder = segmenter.query_decoder
    steps = decoder(features)
    masks = decoder.heads.masks(decoder.heads.norm(steps[-1]), features.mask_features)
    return Look(steps, masks, segmenter.context_pooling(masks, features.mask_features))


Agrees = Callable[[Look, int], bool]
"""Whether what was seen of one frame is what was stored of it, within the tolerance."""


def settle(segmenter: Segmenter, features: PixelFeatures, agrees: Agrees) -> Sides:
    """The sides on which logits near zero must lie for every frame to agree; as they lie where none would do."""
    sides: Sides = {}
    for t in range(len(features.mask_features)):
        frame = PixelFeatures(tuple(level[t : t + 1] for level in features.levels), features.mask_features[t : t + 1])
        sides |= _settle(segmenter, frame, t, agrees)
    return sides


def _settle(segmenter: Segmenter, frame: PixelFeatures, t: int, agrees: Agrees) -> Sides:
    plain: Sides | None = None
    waiting: deque[Sides] = deque([{}])
    for _ in range(LOOKS):
        if not waiting:
            break
        flipped = waiting.popleft()
        with Cuts(segmenter, flipped, first=t) as cuts:
            seen = look(segmenter, frame)
        if agrees(seen, t):
            return cuts.met
        plain = cuts.met if plain is None else plain
        if len(flipped) < FLIPS:  # before a flip nothing changes, so only places after it are new
            later = (place for place in sorted(cuts.met) if place > max(flipped, default=Place(t, -1, -1)))
            waiting.extend(flipped | {place: -cuts.met[place]} for place in later)
    return plain or {}


@contextmanager
def on_sides(segmenter: Segmenter, sides: Mapping[Place, int]) -> Iterator[None]:
    """Run a segmenter over the frames of a clip, in order, with what was settled of them."""
    with Cuts(segmenter, sides):
        yield
