"""``cavis train``: one stage of a preset, or a model taught a data set of one's own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cavis.cli.settings import Settings
from cavis.cli.shared import Device, SkipFaulty
from cavis.cli.train_run import INTERRUPTED, Changes, How, train_own, train_stage

__all__ = ["INTERRUPTED", "train"]


class StageName(StrEnum):
    """The stages that can be trained."""

    SEGMENTER = "segmenter"
    TRACKER = "tracker"
    REFINER = "refiner"


class PrecisionName(StrEnum):
    """What the forward pass can be computed in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


Stage = Annotated[
    StageName | None, typer.Option(help="segmenter first, then tracker, then refiner.", show_default=False)
]
PresetName = Annotated[str, typer.Option(help="Which model and schedule; `cavis info` lists them.")]
Seed = Annotated[int, typer.Option(help="What initial weights, clips and sampled points are drawn from.", min=0)]
Data = Annotated[
    list[str], typer.Option(help="twins, or an annotated data set; given twice, both are drawn from equally.")
]
Shares = Annotated[
    list[float], typer.Option(help="How often a clip comes from each --data, in their order.", show_default=False)
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        help="A model to start from: a file or a name, such as coco_r50; a later stage needs the one before.",
        show_default=False,
    ),
]
Own = Annotated[
    str | None,
    typer.Option("--from", help="A model to teach the categories of --data: a name or a file.", show_default=False),
]
HoldOut = Annotated[
    float | None,
    typer.Option(
        help="With --from: share of the videos kept to measure with; 0.1 if the data has no splits.", show_default=False
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(help="Training steps; the learning rate drops at the same shares of them.", min=1, show_default=False),
]
ClipsPerStep = Annotated[
    int | None, typer.Option(help="Clips of a step, of all processes together.", min=1, show_default=False)
]
Frames = Annotated[int | None, typer.Option(help="Frames of a clip.", min=1, show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option(help="Learning rate at the start, until it drops.", show_default=False)
]
EmaDecay = Annotated[
    float | None,
    typer.Option(
        help="Save the moving average of the weights, of this decay, such as 0.996; 0: the last weights.",
        show_default=False,
    ),
]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(help="Of the forward pass: fp16 on CUDA and fp32 elsewhere, if not said.", show_default=False),
]
Recompute = Annotated[bool, typer.Option("--recompute", help="Compute activations twice, not keep them: less memory.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write the log for TensorBoard.")]


def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log.", show_default=False)],
    stage: Stage = None,
    preset: PresetName = "tiny",
    data: Data = ["twins"],  # noqa: B006 (typer copies it)
    share: Shares = [],  # noqa: B006
    start_from: StartFrom = None,
    own: Own = None,
    hold_out: HoldOut = None,
    skip_faulty: SkipFaulty = False,
    steps: Steps = None,
    clips_per_step: ClipsPerStep = None,
    frames: Frames = None,
    learning_rate: LearningRate = None,
    ema_decay: EmaDecay = None,
    settings: Settings = [],  # noqa: B006
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 200,
    precision: Precision = None,
    recompute: Recompute = False,
    tensorboard: Tensorboard = False,
    device: Device = "auto",
) -> None:
    """Train one stage of a preset; or, with --from, a model on a data set of your own.

    OUT holds log.jsonl (a line a step), latest.pt (to resume exactly), model.safetensors (to use) and, if asked for,
    tensorboard/. Ctrl-C stops after the step it is in and leaves a checkpoint. With --from the segmenter and the
    tracker learn one after the other, in OUT/segmenter and OUT/tracker, 500 steps each; categories and sizes are those
    of the data set, and OUT/held_out.json is the share of it that was kept to measure with. Under torchrun or
    accelerate launch the processes share the clips of each step. What is not said is the preset's; --set changes it by
    name (model.reading=paper, loss.prototype_weight=0), and the model's file keeps the reading.

    Example: cavis train --stage segmenter --out runs/seg && cavis train --stage tracker --start-from
    runs/seg/model.safetensors --out runs/track

    Example: cavis train --data my_clips --from lite --out runs/mine
    """
    from cavis.training.processes import leave

    how = How(
        data=tuple(data),
        shares=tuple(share),
        skip_faulty=skip_faulty,
        seed=seed,
        resume=resume,
        checkpoint_every=checkpoint_every,
        settings=tuple(settings),
        changes=Changes(clips_per_step=clips_per_step, frames=frames, learning_rate=learning_rate, ema_decay=ema_decay),
        precision=None if precision is None else precision.value,
        recompute=recompute,
        tensorboard=tensorboard,
        device=device,
    ).ready()
    _require_one_way(own, None if stage is None else stage.value, preset, start_from, hold_out)
    if own is not None:
        train_own(own, out, steps, hold_out, how)
    elif stage is not None:
        train_stage(preset, stage.value, steps, out, start_from, how)
    leave()


def _require_one_way(
    own: str | None, stage: str | None, preset: str, start_from: str | None, hold_out: float | None
) -> None:
    """Either a stage of a preset, or a model to go on from: a ValueError for both, neither, or parts of both."""
    if own is not None and (stage is not None or start_from is not None or preset != "tiny"):
        raise ValueError("expected --from without --stage, --start-from and --preset, for it stands for all three")
    if own is None and stage is None:
        raise ValueError("expected --stage segmenter, tracker or refiner, or --from MODEL; got neither")
    if own is None and hold_out is not None:
        raise ValueError("expected --hold-out with --from; with --stage, train on a folder with a split named train")
