import pytest
import torch
import torch.nn.functional as F
from nano import nano_preset
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from cavis.config import VitAdapter
from cavis.model.backbones import fold_norms, vit_adapter
from cavis.model.backbones.vit_adapter import ConvFeedForward, Extractor, VitAdapterMaps, VitTokens
from cavis.model.deformable_attention import DeformableAttention
from cavis.training.optimizer import build_optimizer

WIDTH, HEADS = 16, 2
SIZES, GRID = ((4, 8), (2, 4), (1, 2)), (2, 4)
SMALL = VitAdapter(width=WIDTH, depth=4, heads=HEADS, adapter_heads=HEADS)


def randomise(module, scale=0.2):
    """Every weight and statistic away from its start, where much is zero or one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(scale * torch.rand_like(tensor))
    return module


def small(seed=0):
    torch.manual_seed(seed)
    return randomise(VitAdapterMaps(SMALL))


def pictures(height=64, width=96, batch=2):
    torch.manual_seed(2)
    return torch.randn(batch, 3, height, width)


def dinov2(**changes):
    torch.manual_seed(3)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": HEADS} | changes
    shape = {"patch_size": 16, "image_size": 16 * 37} | shape
    return randomise(Dinov2Model(Dinov2Config(**shape)).eval())


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def cubic(x):
    """The cubic convolution kernel with a = -0.75."""
    x = x.abs()
    near = 1.25 * x**3 - 2.25 * x**2 + 1
    far = -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros(())))


def resizing(length, spacing, nominal=37):
    """The weights [length, nominal] of each nominal sample; samples beyond the border repeat the border."""
    matrix = torch.zeros(length, nominal, dtype=torch.double)
    for i in range(length):
        place = torch.tensor((i + 0.5) * spacing - 0.5, dtype=torch.double)
        for j in range(int(place.floor()) - 1, int(place.floor()) + 3):
            matrix[i, min(max(j, 0), nominal - 1)] += cubic(place - j)
    return matrix


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


def attend_slowly(attention, query, tokens):
    """One image's deformable attention on one level, sample by sample; ``query`` [L, C], ``tokens`` [M, C]."""
    values = attention.value(tokens).unflatten(-1, (HEADS, -1))
    offsets = attention.offsets(query).view(len(query), HEADS, 4, 2)
    shares = attention.weights(query).view(len(query), HEADS, 4).softmax(-1)
    centres = [((j + 0.5) / w, (i + 0.5) / h) for h, w in SIZES for i in range(h) for j in range(w)]
    rows = []
    for cell, (x, y) in enumerate(centres):
        heads = []
        for head in range(HEADS):
            grid = values[:, head].unflatten(0, GRID)
            moved = offsets[cell, head].tolist()
            seen = [bilinear(grid, x + right / GRID[1], y + down / GRID[0]) for right, down in moved]
            heads.append(sum(share * value for share, value in zip(shares[cell, head], seen, strict=True)))
        rows.append(torch.cat(heads))
    return attention.out(torch.stack(rows))


def feed_forward_slowly(layer, cells):
    """One image's feed-forward layer, the depth-wise convolution as nine shifted products; ``cells`` [L, C]."""
    hidden, start, out = layer.contract(cells), 0, []
    for height, width in SIZES:
        level = hidden[start : start + height * width].unflatten(0, (height, width))
        padded = F.pad(level, (0, 0, 1, 1, 1, 1))
        kernel = layer.mix.weight[:, 0]
        shifts = [(i, j) for i in range(3) for j in range(3)]
        mixed = sum(padded[i : i + height, j : j + width] * kernel[:, i, j] for i, j in shifts) + layer.mix.bias
        out.append(mixed.flatten(0, 1))
        start += height * width
    return layer.expand(F.gelu(torch.cat(out)))


@torch.no_grad()
def test_an_extractor_equals_a_loop_over_cells_and_samples():
    layer = randomise(Extractor(WIDTH, HEADS))
    cells, tokens = 0.01 * torch.randn(2, 42, WIDTH), 0.01 * torch.randn(2, 8, WIDTH)  # so small that epsilon counts

    def normed(norm, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight + norm.bias

    for image, one in enumerate(layer(cells, tokens, SIZES, GRID)):
        query, seen = normed(layer.query_norm, cells[image]), normed(layer.token_norm, tokens[image])
        slow = cells[image] + attend_slowly(layer.attention, query, seen)
        slow = slow + feed_forward_slowly(layer.feedforward, normed(layer.feedforward_norm, slow))
        torch.testing.assert_close(one, slow)


@torch.no_grad()
def test_levels_do_not_see_each_other_in_the_feed_forward_layer():
    layer, cells = randomise(ConvFeedForward(WIDTH)), torch.randn(1, 42, WIDTH)
    together = layer(cells, SIZES)
    apart = [layer(part, (size,)) for part, size in zip(cells.split([32, 8, 2], dim=1), SIZES, strict=True)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))


def test_the_position_embedding_is_itself_at_the_nominal_size_and_bicubic_elsewhere():
    tokens = randomise(VitTokens(WIDTH, 4, HEADS), scale=1.0)
    assert torch.equal(tokens.positions(37, 37), tokens.position)
    grid = tokens.position[0, 1:].unflatten(0, (37, 37)).double()
    for height, width in ((6, 8), (37, 10), (44, 38)):
        rows, columns = resizing(height, 37 / (height + 0.1)), resizing(width, 37 / (width + 0.1))
        expected = torch.einsum("yi,xj,ijc->yxc", rows, columns, grid).flatten(0, 1)
        resized = tokens.positions(height, width)
        assert torch.equal(resized[0, 0], tokens.position[0, 0])
        torch.testing.assert_close(resized[0, 1:].double(), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_tokens_at_the_nominal_size_equal_those_of_dinov2():
    model, tokens = dinov2(), VitTokens(WIDTH, 4, HEADS)
    embeddings = model.embeddings
    tokens.patches.load_state_dict(embeddings.patch_embeddings.projection.state_dict())
    tokens.class_token.copy_(embeddings.cls_token)
    tokens.position.copy_(embeddings.position_embeddings)
    tokens.blocks.load_state_dict(model.encoder.layer.state_dict())
    image = pictures(592, 592, batch=1)
    theirs = model(image, output_hidden_states=True).hidden_states
    for seen, state in zip(tokens(image), theirs[1:], strict=True):
        torch.testing.assert_close(seen, state[:, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (64, 160), (32, 32)])
@torch.no_grad()
def test_four_maps_of_one_width_at_strides_4_8_16_32(height, width):
    model = small().eval()
    shapes = [tuple(x.shape) for x in model(pictures(height, width))]
    assert shapes == [(2, WIDTH, height // stride, width // stride) for stride in (4, 8, 16, 32)]
    assert model.channels == (WIDTH,) * 4


@pytest.mark.parametrize(("height", "width"), [(64, 80), (48, 64), (64, 65)])
def test_a_size_that_32_does_not_divide_is_refused(height, width):
    with pytest.raises(ValueError, match=f"that 32 divides, got {height} x {width}"):
        small()(pictures(height, width))


@pytest.mark.parametrize("changes", [{"depth": 6}, {"heads": 3}, {"adapter_heads": 3}], ids=str)
def test_parts_that_do_not_divide_evenly_are_refused(changes):
    shape = {"width": WIDTH, "depth": 4, "heads": HEADS, "adapter_heads": HEADS} | changes
    with pytest.raises(ValueError, match=r"expected a width that"):
        VitAdapterMaps(VitAdapter(**shape))


@torch.no_grad()
def test_maps_of_a_batch_are_the_maps_of_its_images():
    model, images = small().eval(), pictures(batch=3)
    apart = [model(image) for image in images.split(1)]
    for together, *alone in zip(model(images), *apart, strict=True):
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_extractors_that_add_nothing_leave_the_prior_plus_one_quarter_of_the_tokens():
    model, images = small().eval(), pictures()
    for extractor in model.extractors:
        for last in (extractor.attention.out, extractor.feedforward.expand):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    quarters = [x.transpose(1, 2).unflatten(2, (4, 6)) for x in model.vit(images)]
    finest, *others = model.prior(images)
    others = [x + e[:, None, None] for x, e in zip(others, model.level_embedding, strict=True)]
    finest = finest + model.up(others[0])
    expected = (
        finest + F.interpolate(quarters[0], scale_factor=4, mode="bilinear"),
        others[0] + F.interpolate(quarters[1], scale_factor=2, mode="bilinear"),
        others[1] + quarters[2],
        others[2] + F.avg_pool2d(quarters[3], 2),
    )
    for norm, x, found in zip(model.norms, expected, model(images), strict=True):
        torch.testing.assert_close(found, norm(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_each_extractor_sees_its_quarter_and_the_extra_ones_the_last():
    model, images, seen = small().eval(), pictures(), []
    for extractor in model.extractors:
        extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model(images)
    quarters = model.vit(images)
    assert len(seen) == 6
    for found, quarter in zip(seen, (*quarters, quarters[3], quarters[3]), strict=True):
        assert torch.equal(found, quarter)


@torch.no_grad()
def test_a_quarter_of_the_tokens_is_what_a_shallower_transformer_ends_with():
    deep = randomise(VitTokens(WIDTH, 8, HEADS))
    shallow = VitTokens(WIDTH, 4, HEADS)
    shallow.load_state_dict({name: value for name, value in deep.state_dict().items() if name in shallow.state_dict()})
    images = pictures()
    assert torch.equal(deep(images)[0], shallow(images)[1])
    assert torch.equal(deep(images)[1], shallow(images)[3])


@torch.no_grad()
def test_folding_the_norms_leaves_the_maps_the_same():
    model, images = small().eval(), pictures()
    before = model(images)
    fold_norms(model)
    assert not [module for module in model.prior.modules() if isinstance(module, nn.BatchNorm2d)]
    for folded, x in zip(model(images), before, strict=True):
        torch.testing.assert_close(folded, x, atol=1e-4, rtol=1e-4)


def test_gradients_reach_all_of_the_adapter_and_nothing_of_the_transformer():
    model = small().train().requires_grad_(True)  # the order in which the transformer is asked to learn
    sum(x.square().sum() for x in model(pictures())).backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in model.named_parameters() if not name.startswith("vit.")}


@pytest.mark.parametrize("last", ["train", "requires_grad"])
def test_training_changes_the_adapter_and_never_the_transformer(last):
    model = small()
    model = model.requires_grad_(True).train() if last == "train" else model.train().requires_grad_(True)
    optimizer = build_optimizer(model, nano_preset().segmenter)
    before, images = state_of(model), pictures()
    for _ in range(2):
        optimizer.zero_grad()
        sum(x.square().sum() for x in model(images)).backward()
        optimizer.step()
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if name.startswith("vit.")}


def test_the_transformer_is_frozen_again_whenever_training_starts():
    model = VitAdapterMaps(SMALL)
    model.requires_grad_(True).train()
    assert {name for name, module in model.named_modules() if not module.training} == {
        name for name, _ in model.named_modules() if name.split(".")[0] == "vit"
    }
    assert not any(parameter.requires_grad for parameter in model.vit.parameters())
    assert all(parameter.requires_grad for parameter in model.extractors.parameters())


def test_extractors_computed_again_have_the_same_gradients(monkeypatch):
    model, images = small().train(), pictures()

    def gradients():
        model.zero_grad()
        sum(x.square().sum() for x in model(images)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    again = gradients()
    monkeypatch.setattr(vit_adapter, "checkpoint", lambda module, *inputs, **_: module(*inputs))
    kept = gradients()
    assert again.keys() == kept.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient)


def test_a_new_adapter_looks_outwards_and_its_convolutions_are_scaled_by_their_fan_out():
    torch.manual_seed(0)
    model = VitAdapterMaps(VitAdapter(width=64, depth=4, heads=4, adapter_heads=4))
    fresh = DeformableAttention(64, 4, levels=1, points=4)
    for extractor in model.extractors:
        assert torch.equal(extractor.attention.offsets.bias, fresh.offsets.bias)
        assert extractor.feedforward.contract.weight.std().item() == pytest.approx(0.02, rel=0.1)
    for layer, fan_out in ((model.prior.down[0][0], 9 * 128), (model.prior.project[3], 64), (model.up, 4 * 64)):
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    mix = model.extractors[0].feedforward.mix
    assert mix.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.3)
