"""Large files, written with little memory."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from cavis.checkpoints.files import CheckpointError, write_atomically


class StreamedTensor(NamedTuple):
    """One entry of a file that is about to be written."""

    name: str
    shape: tuple[int, ...]
    """What the tensor must look like."""
    make: Callable[[], Tensor]
    """Gives the tensor; a view of a mapped file costs nothing until its bytes are written."""


def write_safetensors(path: Path, entries: Iterable[StreamedTensor], metadata: Mapping[str, str]) -> None:
    """Write ``entries`` as a safetensors file with ``metadata`` in its header, whole or not at all.

    The bytes go straight from where they lie to the disk: from mapped tensors of W bytes, at most W are resident, and
    those are pages that the system takes back when it needs them. Tensors that are not contiguous, and those that are
    computed, take their own size in addition. A CheckpointError if a tensor has another shape than announced, or if two
    have the same name.
    """
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        tensor = entry.make()
        if tuple(tensor.shape) != tuple(entry.shape):
            raise CheckpointError(
                f"expected {entry.name} of shape {tuple(entry.shape)} for {path}, got {tuple(tensor.shape)}"
            )
        if entry.name in tensors:
            raise CheckpointError(f"expected every entry of {path} once, got {entry.name} twice")
        tensors[entry.name] = tensor.contiguous()
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=dict(metadata)))
