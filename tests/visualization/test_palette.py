import itertools

import pytest

from cavis.visualization.palette import LENGTH, colour, colours, contrast, hex_colour, text_colour


def test_neighbouring_ids_look_different_to_every_viewer():
    # 0.02 is about the smallest difference that can be seen side by side (OKLab); this asks for three times that.
    for track_id, gap in itertools.product(range(2 * LENGTH), range(1, 9)):
        assert contrast(colour(track_id), colour(track_id + gap)) > 0.06


def test_no_two_ids_within_the_palette_share_a_colour():
    assert len(set(colours())) == LENGTH >= 60


def test_any_integer_has_a_colour_that_stays_the_same():
    assert colour(10**9) == colour(10**9) in colours()
    assert colour(-1) == colour(LENGTH - 1)
    assert hex_colour(0) == "#e69f00"


def test_contrast_is_judged_by_the_viewer_who_sees_least_of_it():
    red, green, blue = (215, 48, 39), (80, 150, 20), (0, 80, 255)
    assert contrast(red, green) < contrast(red, blue)
    assert contrast(red, red) == 0


@pytest.mark.parametrize("track_id", range(LENGTH))
def test_text_can_be_read_on_every_colour(track_id):
    def luminance(rgb):
        share = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * share[0] + 0.7152 * share[1] + 0.0722 * share[2]

    high, low = sorted((luminance(colour(track_id)), luminance(text_colour(colour(track_id)))), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5
