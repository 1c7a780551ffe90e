"""The smallest model there is, and a world of coloured squares to run it in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cavis.config import InferenceConfig, LossConfig, ModelConfig, Preset, Reading, ResNet, Stage, StageConfig
from cavis.data.clips import draw_frames
from cavis.data.loaders import FrameChoice
from cavis.model import Cavis, build_model
from cavis.model.deformable_attention import DeformableAttention
from cavis.records import Clip, ClipBatch, FramePrediction, Targets

CATEGORIES = ("red", "green", "blue")
HEIGHT, WIDTH = 64, 96


def nano_config(**reading) -> ModelConfig:
    return ModelConfig(
        backbone=ResNet(depths=(1, 1, 1, 1), widths=(8, 16, 16, 32), stem_width=8, layer="basic"),
        categories=CATEGORIES,
        queries=8,
        hidden=32,
        heads=4,
        pixel_decoder_layers=1,
        pixel_decoder_feedforward=64,
        sampling_points=2,
        decoder_layers=2,
        tracker_layers=2,
        refiner_layers=2,
        feedforward=64,
        reading=Reading(**reading),
    )


def nano_preset(steps: int = 6, **reading) -> Preset:
    schedule = StageConfig(
        steps=steps,
        decay_at=(steps - 2,),
        clips_per_step=1,
        frames=2,
        frame_range=2,
        learning_rate=1e-3,
        backbone_factor=0.5,
        max_gradient_norm=1.0,
        warmup=2,
    )
    return Preset(
        name="nano",
        model=nano_config(**reading),
        loss=LossConfig(points=128),
        segmenter=schedule,
        tracker=replace(schedule, frames=3, frame_range=0),
        inference=InferenceConfig(short_side=HEIGHT, max_side=WIDTH, top_k=4, window=3),
    )


def nano_model(seed: int = 0, *, stage: Stage = "tracker", **reading) -> Cavis:
    """An untrained model in evaluation mode; what starts as zeros and ones is filled with something less bland."""
    torch.manual_seed(seed)
    model = build_model(nano_config(**reading), stage)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, DeformableAttention):
            for layer in (module.offsets, module.weights):
                torch.nn.init.normal_(layer.weight, std=0.1)
    return model.eval()


def images(batch: int = 1, frames: int = 4, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch * frames, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (fine * 255).to(torch.uint8).unflatten(0, (batch, frames))


class Squares:
    """A source of clips: squares of the colour of their class drift over grey; later ones cover earlier ones."""

    def __init__(self, objects: int = 3, height: int = HEIGHT, length: int = 8, classes: int = len(CATEGORIES)) -> None:
        self.objects, self.classes = objects, classes
        self.height, self.width, self.length = height, WIDTH, length

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A clip whose squares are seen in every frame (their corners never are covered)."""
        times = choose(self.length, rng)
        labels = rng.permutation(np.arange(self.objects) % self.classes)
        corner = np.stack(
            [rng.uniform(2, self.height / 2 - 8, self.objects), rng.permutation(self.objects) * 26.0 + 2], axis=1
        )
        speed = rng.uniform(-0.5, 2, (self.objects, 2)) * (1, 0.5)
        pictures = np.full((len(times), self.height, self.width, 3), 90, np.uint8)
        masks = np.zeros((self.objects, len(times), self.height, self.width), bool)
        for t, time in enumerate(times):
            for n in range(self.objects):
                y, x = np.clip(corner[n] + time * speed[n], 0, (self.height - 8, self.width - 8)).astype(int)
                box = np.s_[y : y + 18, x : x + 18]
                pictures[t][box] = 30
                pictures[t][box][..., labels[n]] = 220
                masks[:, t][:, box[0], box[1]] = False
                masks[n, t][box] = True
        return self._clip(pictures, masks, labels)

    @staticmethod
    def _clip(pictures: np.ndarray, masks: np.ndarray, labels: np.ndarray) -> Clip:
        masks = torch.from_numpy(masks)
        targets = Targets(
            labels=torch.from_numpy(labels.astype(np.int64)),
            ids=torch.arange(len(labels)),
            masks=masks,
            present=masks.flatten(2).any(dim=2),
        )
        return Clip(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), targets)


def squares(seed: int = 0, frames: int = 3, objects: int = 3, classes: int = len(CATEGORIES)) -> Clip:
    """One clip of consecutive frames."""
    return Squares(objects, classes=classes).draw(np.random.default_rng(seed), consecutive(frames))


def consecutive(frames: int) -> FrameChoice:
    return lambda length, rng: draw_frames(length, frames, 0, rng)


def batch_of(*clips: Clip) -> ClipBatch:
    return ClipBatch(torch.stack([clip.frames for clip in clips]), tuple(clip.targets for clip in clips))


def hide(clip: Clip, *places: tuple[int, int]) -> Clip:
    """The clip with objects absent: (object, frame) pairs."""
    present, masks = clip.targets.present.clone(), clip.targets.masks.clone()
    for place in places:
        present[place], masks[place] = False, False
    return replace(clip, targets=replace(clip.targets, present=present, masks=masks))


def assert_same_clip(left: Clip, right: Clip) -> None:
    """Equal frames and equal targets."""
    assert left.frames.equal(right.frames)
    for name, value in vars(left.targets).items():
        assert value.equal(getattr(right.targets, name)), name


def empty(clip: Clip) -> Clip:
    """The clip with nothing annotated."""
    none = {name: value[:0] for name, value in vars(clip.targets).items()}
    return replace(clip, targets=Targets(**none))


def frames_of(prediction: FramePrediction, frames: slice) -> FramePrediction:
    """A window of a prediction."""
    cut = {name: value[:, frames] for name, value in vars(prediction).items() if name != "auxiliary"}
    return FramePrediction(**cut)


def clips_of(record, clips: slice):
    """Some clips of a batched record (prediction or state)."""
    cut = {name: value[clips] for name, value in vars(record).items() if isinstance(value, torch.Tensor)}
    return replace(record, **cut)


def random_frames(
    batch: int = 1, frames: int = 1, queries: int = 6, hidden: int = 32, seed: int = 0
) -> FramePrediction:
    """What a segmenter might say, without one."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(batch, frames, *shape, generator=generator)

    core, embedding = noise(queries, hidden), noise(queries, hidden)
    return FramePrediction(
        class_logits=noise(queries, len(CATEGORIES) + 1),
        mask_logits=noise(queries, 8, 12),
        queries=noise(queries, hidden),
        core=core,
        context=noise(queries, hidden),
        context_embedding=embedding,
        context_aware=torch.cat((core, embedding), dim=-1),
        mask_features=noise(hidden, 8, 12),
    )


def nano_run(folder: Path, stage="segmenter", steps: int = 6, **extra):
    """A training run of the nano model in the world of squares."""
    from cavis.training.loop import Run

    preset = nano_preset(steps)
    return Run(preset=preset, stage=stage, schedule=preset.stage(stage), seed=5, folder=folder, **extra)


def train_in_child(folder: str, steps: int) -> None:
    """Train and say so after each step; a child process's program, to be killed."""
    from cavis.training.loop import train

    run = nano_run(Path(folder), steps=steps, checkpoint_every=2)
    for report in train(run, nano_model(), Squares()):
        print(report.step, flush=True)
