"""Pictures as text: what is shown without a kernel."""

import io

import numpy as np
import pytest
from PIL import Image

from widgets.markup import bars, in_one_sentence, png, problem


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 3, 3), (40, 61, 3)])
def test_a_png_decodes_to_the_picture_it_was_made_of(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)


@pytest.mark.parametrize(
    "value",
    [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8), [[1]], None],
    ids=["floats", "no channels", "empty", "list", "none"],
)
def test_what_is_no_picture_is_refused_in_one_sentence(value):
    with pytest.raises(ValueError, match=r"^expected a picture[^\n]*got[^\n]*$"):
        png(value)


def test_bars_draw_one_stroke_for_each_finite_number_and_survive_the_rest():
    drawn = bars([("a", np.array([1.0, -1.0, np.nan, np.inf]))], "numbers")
    assert drawn.count("V") == 4
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert "<svg" in bars([], "nothing")
    assert "<svg" in bars([("empty", np.zeros(0))], "nothing")


def test_names_and_errors_cannot_bring_markup_with_them():
    assert "<script>" not in bars([("<script>", np.ones(2))], '"><script>')
    assert "<script>" not in problem("<script>")


def test_an_error_becomes_one_line():
    assert in_one_sentence(ValueError("expected\n this")) == "expected this"
    assert in_one_sentence(KeyError("x")) == "KeyError: 'x'"
    assert in_one_sentence(RuntimeError()) == "RuntimeError"
