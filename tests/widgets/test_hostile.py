"""Whatever a view is given, it is shown or refused in one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from widgets import AssociationMatrix, ContextFilterLab, EmbeddingMap, TrackPlayer, TrainingPanel

POINTS = np.random.default_rng(0).random((3, 2))
FRAMES = np.zeros((3, 4, 5, 3), np.uint8)
MASKS = np.ones((3, 4, 5), int)

HOSTILE: dict[str, Any] = {
    "None": None,
    "text": "abc",
    "a number": 3,
    "a mapping": {},
    "nothing": np.zeros(0),
    "no rows": np.zeros((0, 2)),
    "no number": np.full((4, 2), np.nan),
    "one point": np.zeros((1, 2)),
    "objects": np.array([None, {}], object),
    "three axes": np.zeros((2, 3, 4)),
    "complex": np.zeros((3, 2), complex),
    "ragged": [[1, 2], [3]],
    "a million": np.zeros((10**6, 2), np.float32),
    "booleans": np.zeros((3, 2), bool),
    "too large": np.full((3, 2), 1e308),
    "a picture": np.zeros((4, 5, 3), np.uint8),
    "pictures of nothing": np.zeros((2, 0, 5, 3), np.uint8),
    "a generator": (i for i in range(3)),
}

VIEWS: dict[str, Callable[[Any], Any]] = {
    "points": EmbeddingMap,
    "groups of points": lambda it: EmbeddingMap(POINTS, it),
    "names of groups": lambda it: EmbeddingMap(POINTS, np.arange(3), names=it),
    "rows of points": lambda it: EmbeddingMap(POINTS, rows=it),
    "similarities": AssociationMatrix,
    "pairs": lambda it: AssociationMatrix(np.eye(3), it),
    "names of slots": lambda it: AssociationMatrix(np.eye(3), left_names=it),
    "rows of slots": lambda it: AssociationMatrix(np.eye(3), right_rows=it),
    "frames": TrackPlayer,
    "masks": lambda it: TrackPlayer(FRAMES, it),
    "names of tracks": lambda it: TrackPlayer(FRAMES, MASKS, names=it),
    "numbers of tracks": lambda it: TrackPlayer(FRAMES, MASKS, numbers=it),
    "groups of tracks": lambda it: TrackPlayer(FRAMES, MASKS, groups=it),
    "rows of tracks": lambda it: TrackPlayer(FRAMES, MASKS, rows=it),
    "pictures": lambda it: ContextFilterLab(it, ["a"], lambda *_: None),
    "names of objects": lambda it: ContextFilterLab(FRAMES, it, lambda *_: None),
    "a computation": lambda it: ContextFilterLab(FRAMES, ["a"], it),
    "steps": lambda it: ContextFilterLab(FRAMES, ["a"], lambda *_: it),
    "a training": TrainingPanel,
    "a reference": lambda it: TrainingPanel(list, reference=it),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("thing", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_is_shown_or_refused_in_one_sentence(make, thing):
    view, refusal = None, ""
    try:
        view = make(thing)
    except ValueError as error:
        refusal = str(error)
    if view is None:
        assert refusal.startswith("expected ")
        assert "\n" not in refusal
    else:
        picture = view.still().svg if hasattr(view, "still") else view._repr_mimebundle_()["text/html"]
        assert picture
