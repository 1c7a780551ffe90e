import pytest
import torch
from jaxtyping import TypeCheckError
from nano import clips_of, nano_model, random_frames
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from cavis.model import refiner as module
from cavis.model.refiner import Refiner, TemporalConvolution

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def small(layers=2, seed=0):
    torch.manual_seed(seed)
    refiner = Refiner(hidden=32, heads=4, layers=layers, feedforward=48, num_classes=3).eval()
    for parameter in refiner.parameters():
        if parameter.dim() == 1:  # norms and biases start too bland to be told apart
            parameter.data += 0.2 * torch.randn_like(parameter)
    return refiner


def video(batch=1, frames=6, queries=5, hidden=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, batch, frames, queries, hidden)
    return torch.randn(shape, generator=generator).unbind()


def attention_of(ours):
    """The same weights in torch's module."""
    attention = nn.MultiheadAttention(ours.out.in_features, ours.heads, batch_first=True).eval()
    attention.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
    attention.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias])
    attention.out_proj.load_state_dict(ours.out.state_dict())
    return lambda query, memory: attention(query[None], memory[None], memory[None])[0][0]


def convolve(layer, x):
    """A convolution over time [T, C] as its definition says: before the first frame and after the last, they repeat."""
    half = layer.kernel_size[0] // 2
    frames = [x[min(max(t, 0), len(x) - 1)] for t in range(-half, len(x) + half)]
    return torch.stack(
        [sum(layer.weight[:, :, k] @ frames[t + k] for k in range(2 * half + 1)) + layer.bias for t in range(len(x))]
    )


def layer_of(block):
    """One video [T, Q, C], track by track and frame by frame, with PyTorch's own attention."""
    through_time, among = attention_of(block.time_attention.attention), attention_of(block.self_attention.attention)
    cross, ends, last = attention_of(block.cross.attention), block.convolution, block.feedforward

    def layer(y, seen):
        tracks = []
        for x in y.unbind(1):
            x = block.time_attention.norm(x + through_time(x, x))
            tracks.append(ends.norm(x + convolve(ends.narrow, convolve(ends.wide, x).relu())))
        frames = []
        for x, values in zip(torch.stack(tracks, dim=1), seen, strict=True):
            x = block.self_attention.norm(x + among(x, x))
            x = block.cross.norm(x + cross(x, values))
            frames.append(last.norm(x + last.contract(last.expand(x).relu())))
        return torch.stack(frames)

    return layer


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_the_refiner_equals_a_transcription(frames):
    refiner = small()
    embeddings, queries = video(frames=frames)
    refined = refiner(embeddings, queries)
    x = embeddings[0]
    for block in refiner.blocks:
        x = layer_of(block)(x, queries[0])
    torch.testing.assert_close(refined.embeddings[0], refiner.heads.norm(x), **CLOSE)


@torch.no_grad()
def test_a_track_has_one_class_from_the_weighted_mean_of_its_frames():
    refiner = small()
    refined = refiner(*video(batch=2))
    for clip in range(2):
        for track in range(5):
            z = refined.embeddings[clip, :, track]
            weights = (z @ refiner.importance.weight[0] + refiner.importance.bias).exp()
            pooled = sum(w * frame for w, frame in zip(weights / weights.sum(), z, strict=True))
            for logits in refined.class_logits[clip, :, track]:
                torch.testing.assert_close(logits, refiner.heads.class_head(pooled), **CLOSE)


@torch.no_grad()
def test_clips_of_a_batch_do_not_meet():
    refiner = small()
    embeddings, queries = video(batch=3)
    together = refiner(embeddings, queries)
    for i in range(3):
        alone = refiner(embeddings[i : i + 1], queries[i : i + 1])
        torch.testing.assert_close(alone.embeddings[0], together.embeddings[i], **CLOSE)
        torch.testing.assert_close(alone.class_logits[0], together.class_logits[i], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 13, 30])
def test_how_many_slots_are_worked_on_together_does_not_matter(monkeypatch, chunk):
    refiner = small()
    embeddings, queries = video(batch=2)
    whole = refiner(embeddings, queries)
    monkeypatch.setattr(module, "CHUNK", chunk)
    parts = refiner(embeddings, queries)
    torch.testing.assert_close(parts.embeddings, whole.embeddings, **CLOSE)
    torch.testing.assert_close(parts.class_logits, whole.class_logits, **CLOSE)


@torch.no_grad()
def test_the_order_of_tracks_and_of_the_segmenters_slots_carries_no_meaning():
    refiner = small()
    embeddings, queries = video()
    plain = refiner(embeddings, queries)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = torch.stack([queries[:, t, torch.randperm(5)] for t in range(6)], dim=1)
    moved = refiner(embeddings[:, :, order], shuffled)
    torch.testing.assert_close(moved.embeddings, plain.embeddings[:, :, order], **CLOSE)
    torch.testing.assert_close(moved.class_logits, plain.class_logits[:, :, order], **CLOSE)


@torch.no_grad()
def test_a_video_played_backwards_is_refined_the_same_but_for_the_convolutions():
    """Nothing else knows the direction of time."""
    refiner = small()
    embeddings, queries = video()
    forward, backward = refiner(embeddings, queries), refiner(embeddings.flip(1), queries.flip(1))
    assert (forward.embeddings - backward.embeddings.flip(1)).abs().max() > 1e-2
    for block in refiner.blocks:
        for layer in (block.convolution.wide, block.convolution.narrow):
            layer.weight.data = layer.weight.data + layer.weight.data.flip(2)
    forward, backward = refiner(embeddings, queries), refiner(embeddings.flip(1), queries.flip(1))
    torch.testing.assert_close(forward.embeddings, backward.embeddings.flip(1), **CLOSE)


@torch.no_grad()
def test_a_standing_track_stays_the_same_to_both_ends():
    convolution = TemporalConvolution(8)
    still = torch.randn(2, 1, 8).expand(2, 9, 8)
    out = convolution(still)
    torch.testing.assert_close(out, out[:, :1].expand(2, 9, 8))


def test_every_layer_is_read_in_training_and_only_the_last_otherwise():
    refiner = small(layers=3)
    embeddings, queries = video()
    with torch.no_grad():
        last = refiner(embeddings, queries)
    assert last.auxiliary == ()
    every = refiner.train()(embeddings, queries)
    torch.testing.assert_close(every.embeddings, last.embeddings)
    assert len(every.auxiliary) == 2
    for i, layer in enumerate(every.auxiliary, start=1):  # as if the layers after it were not there
        shorter = small(layers=i)
        shorter.load_state_dict(refiner.state_dict(), strict=False)
        with torch.no_grad():
            alone = shorter(embeddings, queries)
        torch.testing.assert_close(layer.embeddings, alone.embeddings)
        torch.testing.assert_close(layer.class_logits, alone.class_logits)


def test_every_parameter_learns():
    refiner = nano_model(stage="refiner").refiner.train()
    frames = random_frames(frames=4, queries=8)
    tracks, _ = nano_model().track(frames)
    prediction = refiner.predict(tracks, frames)
    layers = (*prediction.auxiliary, prediction)
    sum(layer.class_logits.square().sum() + layer.mask_logits.square().sum() for layer in layers).backward()
    for name, parameter in refiner.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("importance.bias") and "attention.key.bias" not in name:  # shifts a softmax does not see
            assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_masks_frame_by_frame_and_track_by_track_equal_those_of_the_clip():
    refiner = nano_model(stage="refiner").refiner
    frames = random_frames(batch=2, frames=3, queries=8)
    tracks, _ = nano_model().track(frames)
    clip = refiner.predict(tracks, frames)
    refined = refiner(tracks.embeddings, frames.queries)
    assert clip.auxiliary == ()
    torch.testing.assert_close(clip.embeddings, refined.embeddings)
    torch.testing.assert_close(clip.order, tracks.order)
    for t in range(3):
        some = refiner.masks(refined.embeddings[:, t, [6, 2]], frames.mask_features[:, t])
        torch.testing.assert_close(some, clip.mask_logits[:, t, [6, 2]], **CLOSE)


@torch.no_grad()
def test_a_clip_of_a_batch_is_predicted_as_alone():
    refiner = nano_model(stage="refiner").refiner.train()
    frames = random_frames(batch=2, frames=3, queries=8)
    tracks, _ = nano_model().track(frames)
    together = refiner.predict(tracks, frames)
    one = slice(1, 2)
    alone = refiner.predict(clips_of(tracks, one), clips_of(frames, one))
    for left, right in zip((*alone.auxiliary, alone), (*together.auxiliary, together), strict=True):
        torch.testing.assert_close(left.class_logits, right.class_logits[one], **CLOSE)
        torch.testing.assert_close(left.mask_logits, right.mask_logits[one], **CLOSE)


class Largest(TorchDispatchMode):
    """The most numbers that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


@torch.no_grad()
def test_no_table_of_frames_by_frames_is_made():
    length = 1024
    with Largest() as fused:
        small(layers=1)(*video(frames=length, queries=1))
    with Largest() as plain, sdpa_kernel(SDPBackend.MATH):
        small(layers=1)(*video(frames=length, queries=1))
    assert fused.numbers < length * length / 8 < length * length <= plain.numbers


@torch.no_grad()
def test_no_operation_makes_more_than_the_embeddings_of_a_long_video(monkeypatch):
    """Though the feed-forward layer is wider than an embedding."""
    monkeypatch.setattr(module, "CHUNK", 64)
    embeddings, queries = video(frames=40)
    with Largest() as largest:
        small()(embeddings, queries)
    assert largest.numbers == embeddings.numel()


@pytest.mark.parametrize("other", [(1, 6, 5, 31), (1, 5, 5, 32), (2, 6, 5, 32)])
def test_tracks_and_queries_of_different_videos_are_noticed(other):
    with pytest.raises(TypeCheckError):
        small()(torch.zeros(1, 6, 5, 32), torch.zeros(other))
