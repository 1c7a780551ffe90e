"""The context filter's widget, on plain arrays."""

from types import SimpleNamespace

import numpy as np
import pytest

from widgets import ContextFilterLab
from widgets.context_filter_lab import _colours

PICTURES = np.random.default_rng(1).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
NAMES = ("dog 0", "dog <1>", "cat 2")


def steps(frame=0, instance=0, kind="per_channel", size=9, **changes):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 1 : 3 + instance] = True
    blurred = np.random.default_rng(size).normal(size=(5, 4, 6))
    pooled = np.arange(15.0).reshape(3, 5) + frame
    pooled[2] = 0
    features = np.random.default_rng(0).normal(size=(5, 4, 6))
    arrays = {"mask": mask, "laplacian": 8 * mask.astype(int), "boundary": mask, "features": features}
    arrays |= {"blurred": blurred, "pooled": pooled}
    return SimpleNamespace(**(arrays | changes))


def test_every_control_asks_for_the_steps_it_names():
    asked = []

    def compute(*what):
        asked.append(what)
        return steps(*what)

    lab = ContextFilterLab(PICTURES, NAMES, compute)
    assert asked == [(0, 0, "per_channel", 9)]
    lab.size, lab.kind, lab.frame, lab.instance = 3, "none", 2, 1
    assert asked[-4:] == [(0, 0, "per_channel", 3), (0, 0, "none", 3), (2, 0, "none", 3), (2, 1, "none", 3)]
    size, kind = (widget for widget in lab.children[0].children)
    size.value, kind.value = 15, "channel_sum"
    assert asked[-1] == (2, 1, "channel_sum", 15)
    assert lab.size == 15


def test_the_view_holds_all_five_steps_and_leaves_them_without_a_kernel():
    lab = ContextFilterLab(PICTURES, NAMES, steps)
    bundle = lab._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == lab.model_id
    for words in ("1 · mask", "2 · Lap", "3 · Lap(M) &gt; 0", ">F<", "4 · Avg(F), 9 × 9", "5 · pooled", "not seen"):
        assert words in bundle["text/html"]
    assert bundle["text/html"].count("<img") == 5
    assert "dog &lt;1&gt;" in bundle["text/html"]
    assert "dog <1>" not in bundle["text/html"]
    assert np.array_equal(np.frombuffer(lab.view.laplacian, np.int8).reshape(4, 6), lab.steps.laplacian)


def test_a_context_of_one_number_is_called_that_and_painted_grey():
    blurred = np.repeat(np.random.default_rng(0).normal(size=(1, 4, 6)), 5, axis=0)
    lab = ContextFilterLab(PICTURES, NAMES, lambda *_: steps(blurred=blurred, pooled=np.ones((3, 5))))
    assert "5 times the same number" in lab.view.html
    colours = _colours(blurred, steps().features)
    assert (colours[..., 0] == colours[..., 1]).all()
    assert (_colours(steps().blurred, steps().features).std(axis=2) > 0).any()


def test_one_feature_has_one_colour_whatever_the_filter_makes_of_its_neighbours():
    before = steps().features
    colours, halved = _colours(before, before), _colours(before / 2, before)
    after = before.copy()
    after[:, 2:] = 0
    assert np.array_equal(_colours(after, before)[:2], colours[:2])
    assert halved.std() < colours.std()


def test_without_a_filter_there_is_nothing_to_pool_and_nothing_to_compare():
    lab = ContextFilterLab(PICTURES, NAMES, steps)
    lab.kind = "none"
    assert "There is nothing to pool." in lab.view.html
    assert "cosine" not in lab.view.html
    assert lab.view.html.count("<img") == 4


@pytest.mark.parametrize(
    ("name", "value"), [("frame", 3), ("frame", -1), ("instance", 3), ("other", -1), ("size", 4), ("kind", "box")]
)
def test_what_is_not_on_offer_is_refused_in_one_sentence_and_changes_nothing(name, value):
    lab = ContextFilterLab(PICTURES, NAMES, steps)
    before = lab.view.html, getattr(lab, name)
    with pytest.raises(ValueError, match=r"^expected [^\n]*, got [^\n]*$"):
        setattr(lab, name, value)
    assert (lab.view.html, getattr(lab, name)) == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mask": np.zeros((4,))}, "expected a mask"),
        ({"mask": np.zeros((0, 6))}, "expected a mask"),
        ({"boundary": np.zeros((2, 2))}, "expected boundary"),
        ({"blurred": np.zeros((4, 6))}, "expected blurred features"),
        ({"features": np.zeros((5, 4))}, "expected features"),
        ({"features": np.zeros((4, 4, 6))}, "expected 4 channels before and after the filter, got 5"),
        ({"blurred": np.full((5, 4, 6), np.nan)}, "expected features that are numbers"),
        ({"pooled": np.zeros((2, 5))}, "expected pooled vectors"),
    ],
)
def test_bad_arrays_are_answered_with_a_sentence_in_the_view_and_good_ones_bring_it_back(changes, complaint):
    good = []
    lab = ContextFilterLab(PICTURES, NAMES, lambda *_: steps() if good else steps(**changes))
    assert 'role="alert"' in lab.view.html
    assert complaint in lab.view.html
    assert lab.steps is None
    good.append(True)
    lab.size = 5
    assert 'role="alert"' not in lab.view.html


def test_a_computation_that_fails_does_not_break_the_notebook():
    lab = ContextFilterLab(PICTURES, NAMES, lambda *_: 1 / 0)
    assert "ZeroDivisionError: division by zero" in lab.view.html


@pytest.mark.parametrize("pictures", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4)), None, PICTURES / 255])
def test_bad_pictures_are_refused_at_once(pictures):
    with pytest.raises(ValueError, match=r"^expected [^\n]*$"):
        ContextFilterLab(pictures, NAMES, steps)


def test_no_objects_or_a_frame_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="expected at least one object"):
        ContextFilterLab(PICTURES, (), steps)
    with pytest.raises(ValueError, match="expected frame between 0 and 2, got 3"):
        ContextFilterLab(PICTURES, NAMES, steps, frame=3)


def test_one_picture_and_one_object_are_enough():
    lab = ContextFilterLab(PICTURES[0], ["only"], lambda *_: steps(pooled=np.ones((1, 5))))
    assert 'role="alert"' not in lab.view.html
