import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cavis.inference.postprocess import Sizes, class_scores, instance_masks, network_size, to_network


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_network_sizes_keep_the_shape_within_the_bounds(height, width):
    new_height, new_width = network_size(height, width, 160, 256)
    assert max(new_height, new_width) <= 256
    assert min(new_height, new_width) <= 160
    assert min(new_height, new_width) == 160 or max(new_height, new_width) == 256
    assert (
        new_height == pytest.approx(height * new_width / width, abs=1 + height / width)
        or min(new_height, new_width) == 1
    )


def test_a_frame_of_the_networks_size_is_not_touched():
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert torch.equal(to_network(frame, (6, 8)), torch.from_numpy(frame).permute(2, 0, 1))
    assert to_network(frame, (3, 4)).shape == (3, 3, 4)


def test_padding_never_shows_in_a_mask():
    """The same logits with anything in the padded part give the same mask, away from the seam."""
    torch.manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(1, 2, 4, 6), size=(16, 24), mode="bilinear")[0]
    sizes = Sizes((50, 70), (50, 70))
    other = logits.clone()
    other[:, 14:], other[:, :, 19:] = 99, 99
    left, right = instance_masks(logits, sizes), instance_masks(other, sizes)
    assert left.shape == (2, 50, 70)
    assert torch.equal(left, right)


def test_masks_come_out_at_the_frames_size_and_place():
    logits = torch.full((1, 16, 24), -5.0)
    logits[:, 4:8, 6:18] = 5
    for scale in (1, 2, 3):
        mask = instance_masks(logits, Sizes((64 * scale, 96 * scale), (64, 96)))[0]
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        assert abs(rows.min() - 16 * scale) <= scale
        assert abs(rows.max() + 1 - 32 * scale) <= scale
        assert abs(columns.min() - 24 * scale) <= scale
        assert abs(columns.max() + 1 - 72 * scale) <= scale


def test_no_masks_are_no_masks():
    assert instance_masks(torch.zeros(0, 4, 6), Sizes((30, 40), (16, 24))).shape == (0, 30, 40)


def test_scores_leave_room_for_no_object():
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    scores = class_scores(logits)
    np.testing.assert_allclose(scores[0], 1 / 3, rtol=1e-6)
    assert scores[1, 0] > 0.99
    assert scores[2].sum() < 0.01
