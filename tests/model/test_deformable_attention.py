import pytest
import torch
from transformers.models.mask2former import modeling_mask2former as theirs

from cavis.model import deformable_attention
from cavis.model.deformable_attention import (
    DeformableAttention,
    cell_centres,
    sample_grids,
    sample_levels,
    sample_rows,
    softmax_of_rows,
)

SIZES = ((2, 3), (4, 6), (5, 9))
THIN = ((1, 5), (4, 1), (1, 1))
ways = pytest.mark.parametrize("sample", [sample_grids, sample_rows])


def samples(batch=2, queries=4, heads=2, points=2, depth=3, sizes=SIZES):
    torch.manual_seed(0)
    cells = sum(height * width for height, width in sizes)
    value = torch.randn(batch, cells, heads, depth)
    places = torch.rand(batch, queries, heads, len(sizes), points, 2) * 1.4 - 0.2  # some lie outside
    weights = torch.rand(batch, queries, heads, len(sizes), points)
    return value, places * extents(sizes) - 0.5, weights


def extents(sizes):
    return torch.tensor([(width, height) for height, width in sizes])[:, None]


def bilinear(grid, column, row):
    """The value of ``grid`` [h, w, d] at a place in cells, zero outside, cell by cell."""
    height, width, depth = grid.shape
    total = torch.zeros(depth)
    for i in range(height):
        for j in range(width):
            share = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            total += share * grid[i, j]
    return total


def sample_slowly(value, sizes, places, weights):
    batch, queries, heads, _, points, _ = places.shape
    out = torch.zeros(batch, queries, heads, value.shape[-1])
    levels = value.split([height * width for height, width in sizes], dim=1)
    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                for level, size in enumerate(sizes):
                    grid = levels[level][b, :, head].unflatten(0, size)
                    for p in range(points):
                        x, y = places[b, q, head, level, p].tolist()
                        out[b, q, head] += weights[b, q, head, level, p] * bilinear(grid, x, y)
    return out.flatten(2)


@ways
@pytest.mark.parametrize("sizes", [SIZES, THIN])
def test_sampling_equals_a_loop_over_every_sample(sample, sizes):
    value, places, weights = samples(sizes=sizes)
    torch.testing.assert_close(sample(value, sizes, places, weights), sample_slowly(value, sizes, places, weights))


@ways
def test_sampling_equals_transformers(sample):
    value, places, weights = samples(queries=30, heads=4, points=4)
    relative = (places + 0.5) / extents(SIZES)
    reference = theirs.multi_scale_deformable_attention(value, list(SIZES), relative, weights)
    torch.testing.assert_close(sample(value, SIZES, places, weights), reference)


@ways
@pytest.mark.parametrize("sizes", [SIZES, THIN])
def test_a_place_at_the_first_cell_is_that_cell(sample, sizes):
    value, places, weights = samples(sizes=sizes)
    first = [sum(height * width for height, width in sizes[:i]) for i in range(len(sizes))]
    expected = torch.einsum("blhd,bqhlp->bqhd", value[:, first], weights).flatten(2)
    torch.testing.assert_close(sample(value, sizes, torch.zeros_like(places), weights), expected)


@ways
@pytest.mark.parametrize("sizes", [SIZES, THIN])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_cell_or_more_outside_is_nothing(sample, sizes, axis):
    value, places, weights = samples(sizes=sizes)
    one_axis = torch.eye(2)[axis].bool()
    for outside in (-1, -1e6, extents(sizes), 1e6):
        away = torch.where(one_axis, outside, torch.zeros_like(places))
        assert sample(value, sizes, away, weights).abs().max() < 1e-5


@ways
def test_many_places_are_sampled_as_few(sample, monkeypatch):
    value, places, weights = samples(queries=7)
    together = sample(value, SIZES, places, weights)
    monkeypatch.setattr(deformable_attention, "SAMPLES_AT_ONCE", 30)  # two queries at once, then one
    torch.testing.assert_close(sample(value, SIZES, places, weights), together, atol=0, rtol=0)


@ways
def test_what_is_not_a_number_spoils_its_own_query_only(sample):
    value, places, weights = samples()
    clean = sample(value, SIZES, places, weights)
    places[0, 1, 0, 0, 0, 0] = torch.nan
    spoiled = sample(value, SIZES, places, weights)
    others = torch.ones(2, 4, dtype=torch.bool)
    others[0, 1] = False
    torch.testing.assert_close(spoiled[others], clean[others])


def test_the_gradient_is_that_of_finite_differences():
    value, places, weights = (x.double().requires_grad_() for x in samples(batch=1, queries=2))
    assert torch.autograd.gradcheck(lambda *x: sample_levels(x[0], SIZES, x[1], x[2]), (value, places, weights))


def test_softmax_of_rows_is_softmax():
    x = 10 * torch.randn(2, 5, 3, 12)
    torch.testing.assert_close(softmax_of_rows(x), x.softmax(dim=-1))


def test_attention_is_the_same_with_and_without_gradients():
    layer, centres, x = attention()
    learning = layer(x, centres, x, SIZES)
    with torch.no_grad():
        using = layer(x, centres, x, SIZES)
    assert learning.requires_grad
    torch.testing.assert_close(using, learning, atol=1e-5, rtol=1e-5)


def attention():
    """A layer whose places and weights depend on the query, and what it may look at."""
    torch.manual_seed(0)
    layer = DeformableAttention(8, heads=2, levels=3, points=2)
    torch.nn.init.normal_(layer.offsets.weight)
    torch.nn.init.normal_(layer.weights.weight)
    centres = cell_centres(SIZES, like=torch.zeros(()))
    return layer, centres, torch.randn(3, len(centres), 8)


def test_attention_of_a_batch_is_the_attention_of_its_parts():
    layer, centres, x = attention()
    together = layer(x, centres, x, SIZES)
    apart = torch.cat([layer(part, centres, part, SIZES) for part in x.split(1)])
    torch.testing.assert_close(together, apart)


def test_a_new_layer_looks_outwards_from_the_cell():
    layer = DeformableAttention(8, heads=4, levels=3, points=2)
    offsets = layer.offsets.bias.view(4, 3, 2, 2)
    assert torch.allclose(offsets[:, 0, 0], torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), atol=1e-6)
    assert torch.allclose(offsets[:, :, 1], 2 * offsets[:, :, 0])


def test_cell_centres_run_row_by_row_with_x_first():
    centres = cell_centres(((2, 4),), like=torch.zeros(()))
    assert centres[1].tolist() == [0.375, 0.25]
    assert centres[4].tolist() == [0.125, 0.75]
