from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import assert_same_clip, squares
from PIL import Image

from cavis.config import Augmentation
from cavis.data.augmentation import augment, draw_steps
from cavis.data.looks import Blur, Compress, Noise, Tone, draw_corruption
from cavis.data.mixing import repeat

FACTORS = ("brightness", "contrast", "saturation")


def painted(frames):
    """Squares with every frame of another colour pattern: random pixels, so that any change shows."""
    clip = squares(frames=frames)
    drawn = np.random.default_rng(0).integers(0, 256, tuple(clip.frames.shape))
    return replace(clip, frames=torch.from_numpy(drawn.astype(np.uint8)))


def test_tone_changes_frames_only():
    clip = squares()
    changed = {name: augment(clip, (Tone(**(dict.fromkeys(FACTORS, 1.0) | {name: 0.0})),)) for name in FACTORS}
    assert not changed["brightness"].frames.any()
    assert (changed["contrast"].frames == 128).all()
    grey = changed["saturation"].frames
    assert grey[:, :1].expand(-1, 3, -1, -1).equal(grey)
    np.testing.assert_array_equal(grey[0, 0], Image.fromarray(clip.frames[0].permute(1, 2, 0).numpy()).convert("L"))
    assert all(one.targets.masks.equal(clip.targets.masks) for one in changed.values())
    assert_same_clip(augment(clip, (Tone(1.0, 1.0, 1.0),)), clip)


@pytest.mark.parametrize("look", [Blur(((4, 0),) * 3), Noise(20.0, 7), Compress(10)])
def test_a_corruption_changes_frames_only(look):
    clip = painted(3)
    changed = augment(clip, (look,))
    assert (changed.frames != clip.frames).float().mean() > 0.5
    assert_same_clip(replace(changed, frames=clip.frames), clip)


def test_blur_is_the_mean_of_the_neighbours_along_its_side():
    clip = painted(2)
    changed = augment(clip, (Blur(((2, 0), (0, 3))),)).frames.float()
    pixels = clip.frames.float()
    across = torch.stack([pixels[0, :, :, shift : pixels.shape[-1] - 4 + shift] for shift in range(5)]).mean(dim=0)
    down = torch.stack([pixels[1, :, shift : pixels.shape[-2] - 6 + shift] for shift in range(7)]).mean(dim=0)
    torch.testing.assert_close(changed[0, :, :, 2:-2], across, atol=1.0, rtol=0)
    torch.testing.assert_close(changed[1, :, 3:-3], down, atol=1.0, rtol=0)


def test_noise_is_new_in_every_frame_and_as_strong_as_it_says():
    clip = squares(frames=2)
    grey = replace(clip, frames=torch.full_like(clip.frames, 128))
    noise = augment(grey, (Noise(10.0, 3),)).frames.float() - 128
    assert noise.std(correction=0).item() == pytest.approx(10, rel=0.05)
    assert noise.mean().abs() < 1  # what rounding down costs
    assert np.corrcoef(noise.flatten(1))[0, 1] == pytest.approx(0, abs=0.05)
    assert_same_clip(augment(grey, (Noise(10.0, 3),)), augment(grey, (Noise(10.0, 3),)))


def test_compression_loses_more_at_a_lower_quality():
    clip = painted(1)
    lost = [(augment(clip, (Compress(quality),)).frames.float() - clip.frames).abs().mean() for quality in (90, 40, 10)]
    assert lost == sorted(lost)
    assert len(set(lost)) == 3


@pytest.mark.parametrize("look", [Blur(((0, 0), (2, 0), (4, 0))), Noise(10.0, 0)])
def test_what_differs_between_frames_is_not_shared_by_those_of_a_still_picture(look):
    clip = repeat(replace(painted(1), still=True), 3)
    changed = augment(clip, (look,))
    assert not changed.still
    alone = augment(replace(clip, still=False), (look,))
    assert changed.frames.equal(alone.frames)
    assert not changed.frames[1].equal(changed.frames[2])


def test_half_of_the_corruptions_are_of_each_kind_and_some_clips_have_none():
    drawn = [draw_corruption(4, np.random.default_rng(seed)) for seed in range(400)]
    for kind in (Tone, Blur, Noise, Compress):
        assert 160 < sum(any(isinstance(look, kind) for look in looks) for looks in drawn) < 240
    assert 10 < sum(not looks for looks in drawn) < 45
    blurs = [look.radii for looks in drawn for look in looks if isinstance(look, Blur)]
    assert all(len(radii) == 4 for radii in blurs)
    assert all(0 <= radius <= 6 for radii in blurs for pair in radii for radius in pair)
    for radii in blurs:
        np.testing.assert_allclose(np.diff(radii, n=2, axis=0), 0, atol=1e-9)  # evenly from the first to the last


def test_corruption_comes_last_to_its_share_of_clips_and_changes_nothing_else_that_is_drawn():
    def drawn(corruption, generator):
        clip = Augmentation(scale_jitter=(0.5, 2), window=64, rotation=5, drift=0.2, corruption=corruption)
        return draw_steps(clip, (64, 96), 3, generator, still=True), generator.random()

    pairs = [[drawn(share, np.random.default_rng(seed)) for share in (0.0, 0.5)] for seed in range(300)]
    corrupt = [longer[len(plain) :] for (plain, _), (longer, _) in pairs if longer != plain]
    assert 110 < len(corrupt) < 170  # half of them, less the sixteenth in which nothing is drawn
    assert all(longer[: len(plain)] == plain and after == before for (plain, before), (longer, after) in pairs)
    assert all(isinstance(look, Tone | Blur | Noise | Compress) for looks in corrupt for look in looks)
