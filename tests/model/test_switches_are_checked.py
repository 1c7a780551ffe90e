import pytest

from cavis.config import Reading


def test_a_value_a_switch_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match=r"expected context out of per_channel, .* got 'typo'"):
        Reading(context="typo")  # pyright: ignore


def test_surroundings_cannot_be_carried_by_a_model_without_context():
    with pytest.raises(ValueError, match="expected a context"):
        Reading(context="none", tracker_context="surroundings")
