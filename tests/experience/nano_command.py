"""The command line with one more preset: ``nano``, whose steps take no time, in the twins' world."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from nano import nano_preset

from cavis import categories, cli, presets
from cavis.config import Preset


def nano() -> Preset:
    """Two clips a step, of one frame."""
    base = nano_preset()
    segmenter = replace(base.segmenter, clips_per_step=2, frames=1, frame_range=0, backbone_factor=1.0)
    return replace(base, model=replace(base.model, categories=categories.TWINS), segmenter=segmenter)


if __name__ == "__main__":
    presets.PRESETS["nano"] = nano
    cli.main()
