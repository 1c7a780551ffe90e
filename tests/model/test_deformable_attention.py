import torch
from transformers.models.mask2former import modeling_mask2former as theirs

from cavis.model.deformable_attention import DeformableAttention, cell_centres, sample_levels

SIZES = ((2, 3), (4, 6), (5, 9))


def samples(batch=2, queries=4, heads=2, points=2, depth=3):
    torch.manual_seed(0)
    cells = sum(height * width for height, width in SIZES)
    value = torch.randn(batch, cells, heads, depth)
    places = torch.rand(batch, queries, heads, len(SIZES), points, 2) * 1.4 - 0.2  # some lie outside
    weights = torch.rand(batch, queries, heads, len(SIZES), points)
    return value, places, weights


def bilinear(grid, x, y):
    """The value of ``grid`` [h, w, d] at ``x, y`` in 0 ... 1, zero outside, cell by cell."""
    height, width, depth = grid.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = torch.zeros(depth)
    for i in range(height):
        for j in range(width):
            share = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            total += share * grid[i, j]
    return total


def sample_slowly(value, places, weights):
    batch, queries, heads, _, points, _ = places.shape
    out = torch.zeros(batch, queries, heads, value.shape[-1])
    levels = value.split([height * width for height, width in SIZES], dim=1)
    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                for level, size in enumerate(SIZES):
                    grid = levels[level][b, :, head].unflatten(0, size)
                    for p in range(points):
                        x, y = places[b, q, head, level, p].tolist()
                        out[b, q, head] += weights[b, q, head, level, p] * bilinear(grid, x, y)
    return out.flatten(2)


def test_sampling_equals_a_loop_over_every_sample():
    value, places, weights = samples()
    torch.testing.assert_close(sample_levels(value, SIZES, places, weights), sample_slowly(value, places, weights))


def test_sampling_equals_transformers():
    value, places, weights = samples(queries=30, heads=4, points=4)
    reference = theirs.multi_scale_deformable_attention(value, list(SIZES), places, weights)
    torch.testing.assert_close(sample_levels(value, SIZES, places, weights), reference)


def test_attention_of_a_batch_is_the_attention_of_its_parts():
    torch.manual_seed(0)
    layer = DeformableAttention(8, heads=2, levels=3, points=2)
    torch.nn.init.normal_(layer.offsets.weight)
    torch.nn.init.normal_(layer.weights.weight)
    centres = cell_centres(SIZES, like=torch.zeros(()))
    x = torch.randn(3, len(centres), 8)
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
