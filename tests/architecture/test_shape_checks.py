"""The shapes on the signatures are checked while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from cavis.losses.mask_losses import dice
from cavis.model.context import ContextPooling, box_mean
from cavis.records import LayerPrediction, Targets


def test_a_wrong_number_of_axes_is_noticed():
    box_mean(torch.zeros(1, 2, 4, 4), 3)
    with pytest.raises(TypeCheckError):
        box_mean(torch.zeros(4, 4), 3)


def test_axes_of_one_name_must_agree():
    dice(torch.zeros(3, 5), torch.zeros(3, 5))
    with pytest.raises(TypeCheckError):
        dice(torch.zeros(3, 5), torch.zeros(3, 6))


def test_modules_are_checked_too():
    pooling = ContextPooling(4)
    with pytest.raises(TypeCheckError):
        pooling(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 9))


def test_records_are_checked_too():
    LayerPrediction(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 8, 8))
    with pytest.raises(TypeCheckError):
        LayerPrediction(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 6, 8, 8))
    with pytest.raises(TypeCheckError):
        Targets(
            labels=torch.zeros(2),  # not whole numbers
            ids=torch.arange(2),
            masks=torch.zeros(2, 1, 4, 4, dtype=torch.bool),
            present=torch.ones(2, 1, dtype=torch.bool),
        )
