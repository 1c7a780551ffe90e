import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cavis.model.context import ContextPooling, box_mean, inner_boundary


def scene(batch=2, queries=5, channels=6, height=11, width=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, queries, 4, 5, generator=generator)
    logits = F.interpolate(coarse, size=(height, width), mode="bilinear")
    features = torch.randn(batch, channels, height, width, generator=generator)
    return logits, features


def laplacian(mask):
    """The Laplacian of 0/1 masks in integers: centre 8, neighbours -1, nothing beyond the image."""
    padded = F.pad(mask.long(), (1, 1, 1, 1))
    height, width = mask.shape[-2:]
    shifts = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return 9 * mask.long() - torch.stack(shifts).sum(dim=0)


def pool_slowly(logits, blurred):
    """Eq. 6 word by word: for each query the mean of the blurred features over its boundary pixels."""
    edge = laplacian(logits > 0) > 0
    pooled = logits.new_zeros(*logits.shape[:2], blurred.shape[1])
    for b in range(len(logits)):
        for q in range(logits.shape[1]):
            places = edge[b, q].nonzero()
            total = sum((blurred[b, :, y, x] for y, x in places), logits.new_zeros(blurred.shape[1]))
            pooled[b, q] = total / (len(places) + 1e-6)
    return pooled


def dense_filter(channels, size):
    """The released code's kernel: every output channel is the box mean of the sum over all input channels."""
    return torch.full((channels, channels, size, size), 1 / size**2)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_inner_boundary_is_where_the_laplacian_is_positive(seed, height, width, share):
    mask = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) < share
    assert torch.equal(inner_boundary(mask), laplacian(mask) > 0)


def test_inner_boundary_lies_inside_the_mask_and_the_image_ends_where_it_ends():
    mask = torch.ones(1, 1, 5, 7, dtype=torch.bool)
    expected = torch.ones_like(mask)
    expected[..., 1:-1, 1:-1] = False
    assert torch.equal(inner_boundary(mask), expected)


def test_channel_sum_equals_the_dense_convolution_it_replaces():
    logits, features = scene()
    dense = F.conv2d(features, dense_filter(6, 9), padding=4)
    pooled = ContextPooling(6, "channel_sum", 9)(logits, features)
    torch.testing.assert_close(pooled, pool_slowly(logits, dense), atol=1e-5, rtol=1e-5)
    assert (pooled == pooled[..., :1]).all()


@pytest.mark.parametrize("size", [1, 3, 9, 15])
def test_blurring_the_edges_equals_blurring_the_features(size):
    logits, features = scene()
    blurred = F.conv2d(features, torch.full((6, 1, size, size), 1 / size**2), padding=size // 2, groups=6)
    pooled = ContextPooling(6, "per_channel", size)(logits, features)
    torch.testing.assert_close(pooled, pool_slowly(logits, blurred), atol=1e-5, rtol=1e-5)


def test_the_shortcut_has_the_gradient_of_what_it_replaces():
    logits, features = scene()
    weight = torch.randn(2, 5, 6)
    gradients = []
    for pool in (
        lambda x: ContextPooling(6, "per_channel", 9)(logits, x),
        lambda x: pool_slowly(logits, box_mean(x, 9)),
    ):
        leaf = features.clone().requires_grad_()
        (pool(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [3, 9])
def test_the_learnable_filter_starts_as_the_box_mean(size):
    logits, features = scene()
    learnable, fixed = (ContextPooling(6, kind, size) for kind in ("learnable", "per_channel"))
    torch.testing.assert_close(learnable(logits, features), fixed(logits, features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["per_channel", "channel_sum", "learnable", "none"])
def test_an_empty_mask_has_no_context_and_no_gradient_reaches_the_masks(kind):
    logits, features = scene()
    logits[:, 2] = -1
    logits.requires_grad_()
    features.requires_grad_()
    pooled = ContextPooling(6, kind)(logits, features)
    assert (pooled[:, 2] == 0).all()
    if kind != "none":
        pooled.sum().backward()
        assert features.grad.abs().sum() > 0
        assert logits.grad is None
        assert (pooled[:, 0] != 0).any()
