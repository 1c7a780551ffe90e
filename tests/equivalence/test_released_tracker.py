"""The tracker against a transcription of the released one, frame by frame, with PyTorch's own attention."""

import pytest
import torch
import torch.nn.functional as F
from nano import nano_model, random_frames
from scipy.optimize import linear_sum_assignment
from torch import nn


def attention_of(ours):
    """The same weights in torch's module."""
    hidden = ours.out.in_features
    module = nn.MultiheadAttention(hidden, ours.heads, batch_first=True).eval()
    module.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
    module.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias])
    module.out_proj.load_state_dict(ours.out.state_dict())
    return module


def block_of(ours):
    """Referring cross-attention(identity, query, key, value), self-attention, feed-forward."""
    cross, among = attention_of(ours.cross.attention), attention_of(ours.self_attention.attention)

    def block(identity, query, key, value):
        x = ours.cross.norm(identity + cross(query[None], key[None], value[None])[0][0])
        x = ours.self_attention.norm(x + among(x[None], x[None], x[None])[0][0])
        return ours.feedforward.norm(x + ours.feedforward.contract(F.relu(ours.feedforward.expand(x))))

    return block


def match_embeddings(reference, current, inverted):
    """The released helper: costs reference x current, transposed before the solver, columns returned."""
    left, right = (x / (x.norm(dim=-1, keepdim=True) + 1e-6) for x in (reference, current))
    cost = (1 - left @ right.T).numpy()
    return linear_sum_assignment(cost.T if inverted else cost)[1]


def transcription(tracker, frames, inverted):
    """One video, step by step as the specification lists them; the outputs of the last block."""
    blocks, fusion = [block_of(block) for block in tracker.blocks], tracker.fusion
    outputs, state, last = [], None, None
    for t in range(frames.core.shape[1]):
        core, context, value = frames.core[0, t], frames.context_embedding[0, t], frames.queries[0, t]
        both = torch.cat((core, context), dim=-1)
        key = fusion(both)
        if state is None:
            x = core
            for block in blocks:
                x = block(x, fusion(torch.cat((x, context), dim=-1)), key, value)
            last = both
        else:
            order = match_embeddings(last, both, inverted)
            last = both[order]
            x = core[order]
            query = fusion(state)
            for block in blocks:
                x = block(x, query, key, value)
        end = match_embeddings(x, value, inverted)
        state = torch.cat((x, context[end]), dim=-1)
        outputs.append(x)
    return torch.stack(outputs)[None]


@torch.no_grad()
@pytest.mark.parametrize("alignment", ["true", "inverted"])
def test_the_tracker_equals_the_transcription(alignment):
    model = nano_model(alignment=alignment, tracker_start="linked")
    frames = random_frames(frames=6, queries=8, seed=3)
    expected = transcription(model.tracker, frames, alignment == "inverted")
    heads = model.tracker.heads
    prediction, state = model.track(frames)
    torch.testing.assert_close(prediction.embeddings, heads.norm(expected), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prediction.class_logits, heads.class_head(heads.norm(expected)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state.tracks, expected[:, -1], atol=1e-5, rtol=1e-4)
    masks = torch.einsum("tqc,tchw->tqhw", heads.mask_head(heads.norm(expected))[0], frames.mask_features[0])
    torch.testing.assert_close(prediction.mask_logits[0], masks, atol=1e-4, rtol=1e-4)
