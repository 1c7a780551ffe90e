"""What is counted is what a hand count gives."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.flops import count_flops
from cavis.model.deformable_attention import sample_grids, sample_rows
from cavis.model.layers import Attention

B, H, L, S, D = 2, 3, 5, 7, 8


def test_one_attention_is_4bhlsd():
    query, key, value = torch.randn(B, H, L, D), torch.randn(B, H, S, D), torch.randn(B, H, S, D)
    counts = count_flops(lambda: F.scaled_dot_product_attention(query, key, value))
    assert sum(counts.values()) == 4 * B * H * L * S * D
    masked = count_flops(lambda: F.scaled_dot_product_attention(query, key, value, torch.ones(L, S).bool()))
    assert masked == counts


@torch.inference_mode()
def test_an_attention_layer_is_its_products_and_its_four_projections():
    layer = Attention(H * D, H)
    query, memory = torch.randn(B, L, H * D), torch.randn(B, S, H * D)
    counts = count_flops(lambda: layer(query, layer.project(memory, memory)))
    projections = 2 * B * (H * D) ** 2 * (2 * L + 2 * S)
    assert sum(counts.values()) == 4 * B * H * L * S * D + projections


@torch.inference_mode()
def test_fused_and_plain_attention_count_the_same():
    layer = Attention(H * D, H).eval()
    query, memory = torch.randn(B, L, H * D), torch.randn(B, S, H * D)
    plain = nn.MultiheadAttention(H * D, H, batch_first=True).eval()
    counts = [
        sum(count_flops(work).values())
        for work in (lambda: layer(query, layer.project(memory, memory)), lambda: plain(query, memory, memory))
    ]
    assert counts[0] == counts[1]


@torch.inference_mode()
def test_the_encoder_fast_path_hides_nothing():
    layer = nn.TransformerEncoderLayer(H * D, H, 32, batch_first=True).eval()
    counts = count_flops(lambda: layer(torch.randn(B, L, H * D)))
    projections = 2 * B * L * (4 * (H * D) ** 2 + 2 * 32 * H * D)
    assert sum(counts.values()) == 4 * B * H * L * L * D + projections
    assert torch.backends.mha.get_fastpath_enabled()


def test_both_ways_of_sampling_count_the_same():
    sizes = ((2, 3), (4, 5))
    value, weights = torch.randn(B, 26, H, D), torch.rand(B, L, H, 2, 4)
    places = torch.rand(B, L, H, 2, 4, 2) * 4
    counts = [
        sum(count_flops(lambda f=f: f(value, sizes, places, weights)).values()) for f in (sample_grids, sample_rows)
    ]
    assert counts == [8 * D * weights.numel()] * 2


def test_a_convolution_is_two_operations_a_weight_and_place():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert sum(count_flops(lambda: layer(torch.randn(1, 3, 6, 7))).values()) == 2 * 5 * 3 * 9 * 6 * 7
