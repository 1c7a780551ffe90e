"""Assignments that hang on rounding: the released ones are handed out where they do, and must be found elsewhere."""

from typing import NamedTuple

import torch
from golden_sets import Golden

from cavis.model.association import invert, match


class Calls(NamedTuple):
    """Assignments in the order they are made, each [Q] as ``match`` returns it."""

    orders: list[torch.Tensor]
    margins: list[float]
    """The smallest noise on the costs that changed the released assignment."""
    smallest: float
    """Margins up to this one may be rounding."""


class Referee:
    """Hungarian matching that must find what is stored, but where the assignment hangs on rounding.

    There a stored answer that differs is handed out instead, so that what follows can still be compared.
    """

    def __init__(self, calls: Calls) -> None:
        self.stored, self.margins, self.smallest = calls
        self.calls = 0

    def __call__(self, reference: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        found = match(reference, current)
        expected, margin = self.stored[self.calls], self.margins[self.calls]
        self.calls += 1
        if margin > self.smallest:
            assert found[0].tolist() == expected.tolist(), f"assignment {self.calls}"
        return expected[None]


def calls_of(stored: Golden) -> Calls:
    """The tracker's assignments; the released code inverts them."""
    last, context = (invert(stored[f"tracker.{name}"].long()) for name in ("match_last_frame", "match_context"))
    flat = [order for t in range(len(last)) for order in (last[t], context[t])]
    margins = stored.info.get("margins", [1.0] * len(flat))
    assert len(margins) == len(flat)
    return Calls(flat[1:], margins[1:], 1e-4)  # nothing is aligned before the first frame


def links_of(stored: Golden) -> Calls:
    """The assignments that link the segmenter's frames."""
    orders = list(stored["minvis_match_indices"].long())
    return Calls(orders, stored.info.get("margins", [1.0] * len(orders)), 1e-5)
