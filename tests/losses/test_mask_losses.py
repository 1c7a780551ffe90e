import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.mask2former import modeling_mask2former as theirs

from cavis.losses.mask_losses import dice, mask_cross_entropy, pairwise_dice, pairwise_mask_cross_entropy
from cavis.losses.point_sampling import sample_at, uncertain_points, uniform_points


def pairs(seed=0, queries=5, objects=3, points=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(queries, points, generator=generator), torch.rand(objects, points, generator=generator).round()


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_pairwise_costs_equal_the_losses_of_single_pairs(seed):
    logits, truth = pairs(seed)
    for pairwise, single in ((pairwise_mask_cross_entropy, mask_cross_entropy), (pairwise_dice, dice)):
        costs = pairwise(logits, truth)
        for q in range(len(logits)):
            for n in range(len(truth)):
                torch.testing.assert_close(costs[q, n : n + 1], single(logits[q : q + 1], truth[n : n + 1]))


def test_costs_and_losses_equal_transformers():
    logits, truth = pairs(queries=4, objects=4)
    torch.testing.assert_close(pairwise_dice(logits, truth), theirs.pair_wise_dice_loss(logits, truth))
    torch.testing.assert_close(
        pairwise_mask_cross_entropy(logits, truth), theirs.pair_wise_sigmoid_cross_entropy_loss(logits, truth)
    )
    torch.testing.assert_close(dice(logits, truth).sum(), theirs.dice_loss(logits, truth, 1))
    torch.testing.assert_close(
        mask_cross_entropy(logits, truth).sum(), theirs.sigmoid_cross_entropy_loss(logits, truth, 1)
    )


def test_a_perfect_mask_costs_nothing_and_its_opposite_the_most():
    truth = torch.tensor([[1.0, 1, 0, 0]])
    right, wrong = 50 * (2 * truth - 1), -50 * (2 * truth - 1)
    assert dice(right, truth) < 1e-6
    assert mask_cross_entropy(right, truth) < 1e-6
    torch.testing.assert_close(dice(wrong, truth), torch.tensor([1 - 1 / 5]))
    torch.testing.assert_close(mask_cross_entropy(wrong, truth), torch.tensor([50.0]))


def test_samples_at_cell_centres_are_the_cells():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(5) + 0.5) / 5, indexing="ij")
    points = torch.stack((x, y), dim=-1).flatten(0, 1).expand(2, -1, -1)
    torch.testing.assert_close(sample_at(maps, points), maps.flatten(2))


def test_uncertain_points_are_nearer_to_the_edge_than_random_ones():
    ramp = torch.linspace(-10, 10, 64).expand(2, 1, 32, 64)
    options = {"oversample": 3.0, "generator": torch.Generator().manual_seed(0)}
    chosen = uncertain_points(ramp, 400, importance=0.75, **options)
    anywhere = uncertain_points(ramp, 400, importance=0.0, **options)
    assert chosen.shape == anywhere.shape == (2, 400, 2)
    for points in (chosen, anywhere):
        assert ((points >= 0) & (points <= 1)).all()
    distance = (chosen[..., 0] - 0.5).abs()
    # of 1200 candidates the 300 nearest lie within one eighth of the width; a quarter of the points lies anywhere
    assert (distance < 0.15).float().mean() > 0.75
    assert ((anywhere[..., 0] - 0.5).abs() < 0.15).float().mean() < 0.4
    assert (distance > 0.3).any()


def test_points_depend_on_the_generator_alone():
    like = torch.zeros(())
    torch.manual_seed(1)
    first = uniform_points(2, 5, like, torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    second = uniform_points(2, 5, like, torch.Generator().manual_seed(7))
    assert torch.equal(first, second)
    assert not torch.equal(first, uniform_points(2, 5, like, torch.Generator().manual_seed(8)))


def test_given_points_take_the_place_of_random_ones():
    ramp = torch.linspace(-1, 1, 8).expand(3, 1, 4, 8)
    column = torch.tensor([0.1, 0.5, 0.9, 0.6, 0.3, 0.7])

    def given_points(batch, points):
        return torch.stack((column[:points], torch.full((points,), 0.5)), dim=-1).expand(batch, -1, -1)

    assert uniform_points(3, 4, ramp, given_points)[2, :, 0].tolist() == column[:4].tolist()
    chosen = uncertain_points(ramp, 3, oversample=2.0, importance=0.7, generator=given_points)
    # the two of six that are nearest to the middle, then the first
    assert [sorted(x[:2]) + x[2:] for x in chosen[..., 0].tolist()] == [column[[1, 3, 0]].tolist()] * 3


def test_dice_of_soft_masks_lies_between_zero_and_one():
    logits, truth = pairs(3)
    values = pairwise_dice(logits, truth)
    assert ((values >= 0) & (values < 1)).all()
