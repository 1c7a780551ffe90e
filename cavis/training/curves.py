"""The training log as TensorBoard's event files, beside the jsonl: every number is a curve over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Curves:
    """Writes lines of the log as scalars into a folder for ``tensorboard --logdir``.

    A run that goes on after ``start`` steps tells TensorBoard to forget what was written of later ones, so no step
    comes twice. ``earlier``: the lines up to there; they are drawn first where the folder has no curves yet.
    A ValueError if the package tensorboard is missing.
    """

    def __init__(self, folder: Path, start: int, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        begun = any(folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(folder, purge_step=start + 1 if begun else None)
        for line in () if begun else earlier:
            self._add(line)
        self._writer.flush()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line of the log."""
        self._add(line)
        self._writer.flush()  # a run that is killed leaves all curves up to its last step

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, line: Mapping[str, Any]) -> None:
        for name in ("loss", "learning_rate", "gradient_norm", "seconds"):
            self._writer.add_scalar(name, line[name], line["step"])
        for name, value in line["terms"].items():
            self._writer.add_scalar(f"terms/{name}", value, line["step"])


def require_tensorboard() -> None:
    """A ValueError that says how to get the package, where it is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"expected the package tensorboard to draw curves with, got none ({error}); "
            "pip install 'cavis[tensorboard]' brings it"
        ) from error
