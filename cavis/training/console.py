"""What the console says of a training step: the loss, its main terms, speed and memory."""

import resource
import sys

import torch

from cavis.training.log import StepReport

MAIN_TERMS = ("class", "mask", "dice", "context", "prototype")


def describe(report: StepReport, clips_per_step: int, device: str = "cpu") -> str:
    """One line: loss, the main terms that the stage has, clips a second, peak memory in GB of a device."""
    terms = " ".join(f"{name} {report.terms[name]:.2f}" for name in MAIN_TERMS if name in report.terms)
    speed = clips_per_step / report.seconds if report.seconds > 0 else 0.0
    return f"loss {report.loss:.2f} ({terms}) {speed:.2f} clips/s {peak_memory(device) / 1e9:.1f} GB"


def peak_memory(device: str) -> int:
    """Bytes: the most that torch held on a CUDA device, else that the process held in memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
