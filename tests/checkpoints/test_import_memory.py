"""Importing takes hardly more memory than the weights themselves."""

import subprocess
import sys

import pytest
import torch

from cavis.checkpoints.importing import model_shapes
from cavis.checkpoints.official import origin
from cavis.presets import get_preset

MEASURE = """
import sys
from pathlib import Path
from cavis.checkpoints.importing import import_checkpoint, model_shapes
from cavis.presets import get_preset

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

source, preset, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
model_shapes(get_preset(preset).model, "tracker")  # what is imported lazily belongs to the base
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew
import_checkpoint(source, preset, "tracker", out)
print(before, resident("VmHWM"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's accounting of memory")
@pytest.mark.parametrize("preset", ["ovis_r50", pytest.param("ovis_vitl", marks=pytest.mark.slow)])
def test_importing_peaks_at_no_more_than_1_3_times_the_weights(tmp_path, preset):
    state = {}
    for name, shape in model_shapes(get_preset(preset).model, "tracker").items():
        source = origin(name, "released")
        whole = shape if source.part is None else (3 * shape[0], *shape[1:])
        state.setdefault(source.key, torch.empty(whole).fill_(0.5))
    torch.save({"model": state, "optimizer": {}}, tmp_path / "theirs.pth")
    weights = sum(value.numel() * value.element_size() for value in state.values())
    del state
    out = tmp_path / "ours.safetensors"
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "theirs.pth"), preset, str(out)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = map(int, answer.stdout.split())
    print(f"{preset}: weights {weights / 2**20:.0f} MiB, base {before / 2**20:.0f}, peak {peak / 2**20:.0f}")
    assert peak - before <= 1.3 * weights
    assert out.stat().st_size > 0.99 * weights
