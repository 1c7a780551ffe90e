"""What every process of ``test_processes`` runs: training runs, one after the other, each told on the command line."""

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nano import Squares, nano_model, nano_preset

from cavis.config import Preset
from cavis.data.loaders import FrameChoice
from cavis.records import Clip
from cavis.training.log import StepReport
from cavis.training.loop import Run, train
from cavis.training.processes import leave

STEPS = 5
CLIPS = 4


class Motley:
    """Clips of two sizes with no, one, two or three objects: no two processes have the same to count."""

    def draw(self, rng: np.random.Generator, choose: FrameChoice) -> Clip:
        """A clip of squares."""
        objects, height = int(rng.integers(4)), int(rng.choice([64, 96]))
        return Squares(objects, height=height).draw(rng, choose)


def preset() -> Preset:
    """The nano model, all of whose losses are switched on; the segmenter ends with the mean of its weights."""
    base = nano_preset(STEPS, tracker_contrast=True)
    segmenter, tracker = (replace(base.stage(name), clips_per_step=CLIPS) for name in ("segmenter", "tracker"))
    segmenter = replace(segmenter, ema_decay=0.75)
    return replace(base, segmenter=segmenter, tracker=tracker, refiner=tracker)


def run_of(stage: str, folder: Path) -> Run:
    """A run of a stage, in full and in one process."""
    plan = preset()
    return Run(preset=plan, stage=stage, schedule=plan.stage(stage), seed=5, folder=folder, workers=0)


def model_of(seed: int = 0):
    """Its model, as it begins."""
    return nano_model(seed, stage="refiner", tracker_contrast=True)


def follow(run: Run, stop_after: int | None = None, poisoned: bool = False, seed: int = 0) -> list[StepReport]:
    """Train to the end, or until this process wants to stop; a poisoned model loses its head."""
    stop, reports, model = threading.Event(), [], model_of(seed)
    for report in train(run, model, Motley(), stop):
        reports.append(report)
        if report.step == stop_after:
            stop.set()
        if poisoned:
            model.segmenter.query_decoder.heads.class_head.bias.data.fill_(torch.inf)
    return reports


def main(jobs: list[str]) -> None:
    """``stage=folder=`` train; ``stage=folder=stop`` the last process wants to stop; ``stage=folder=fail`` it fails."""
    rank = int(os.environ["RANK"])
    last = rank == 1
    for job in jobs:
        stage, folder, how = job.split("=")
        run = run_of(stage, Path(folder))
        try:
            stop_after = 2 if last and how == "stop" else None
            reports = follow(run, stop_after, last and how == "fail", seed=rank)  # the main one's weights count
            said = f"steps {[report.step for report in reports]}"
        except FloatingPointError as error:
            said = str(error)
        sys.stdout.write(f"process {rank}, {run.folder.name}: {said}\n")  # in one piece
        sys.stdout.flush()
    leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
