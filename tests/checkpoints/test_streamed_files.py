"""Large files written with little memory are the files that safetensors would write."""

import pickle
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cavis.checkpoints.files import CheckpointError
from cavis.checkpoints.streaming import StreamedTensor, write_safetensors


def tensors():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(9, 5, generator=generator)
    return {
        "thirds.0": matrix.chunk(3)[0],
        "thirds.2": matrix.chunk(3)[2],
        "turned": matrix.T,
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(5, generator=generator).bfloat16(),
        "count": torch.tensor(12345678901),
        "flags": torch.tensor([True, False, True]),
        "nothing": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
    }


def entries(state):
    for name, value in state.items():
        yield StreamedTensor(name, tuple(value.shape), lambda value=value: value)


def test_the_file_reads_as_one_that_safetensors_wrote(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_safetensors(ours, entries(tensors()), {"format": "cavis", "name": "Käse"})
    save_file({name: value.contiguous().clone() for name, value in tensors().items()}, theirs)
    left, right = load_file(ours), load_file(theirs)
    assert left.keys() == right.keys() == tensors().keys()
    for name, value in tensors().items():
        assert left[name].dtype == right[name].dtype == value.dtype, name
        assert torch.equal(left[name], value), name
        assert torch.equal(right[name], value), name
    with safe_open(ours, framework="pt") as file:
        assert file.metadata() == {"format": "cavis", "name": "Käse"}
    assert ours.stat().st_mode & 0o777 == 0o644


def fails():
    raise CheckpointError("expected something else")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (StreamedTensor("b", (3,), lambda: torch.zeros(4)), r"expected b of shape \(3,\) for .*, got \(4,\)"),
        (StreamedTensor("a", (2,), lambda: torch.zeros(2)), "got a twice"),
        (StreamedTensor("c", (2,), fails), "something else"),
    ],
)
def test_what_does_not_fit_leaves_the_old_file_and_nothing_else(tmp_path, bad, words):
    path = tmp_path / "x.safetensors"
    path.write_text("old")
    with pytest.raises(CheckpointError, match=words):
        write_safetensors(path, [*entries({"a": torch.zeros(2)}), bad], {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_text() == "old"


MEASURING = """
import os, sys
from pathlib import Path
from cavis.checkpoints.pickles import read_foreign
from cavis.checkpoints.streaming import StreamedTensor, write_safetensors

def peak():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024

def measure(source):
    before = peak()
    state = read_foreign(source)
    opened = peak() - before
    rows = next(iter(state.values())).shape[0] // 4
    entries = (
        StreamedTensor(f"{name}.{part}", (rows, 1024), lambda value=value, part=part: value.chunk(4)[part])
        for name, value in state.items() for part in range(4)
    )
    write_safetensors(source.with_suffix(".out"), entries, {"format": "cavis"})
    return opened, peak() - before

for name in sys.argv[1:]:
    if os.fork() == 0:  # every large file meets a process that has seen no other
        source = Path(name)
        measure(source.parent / "small" / source.name)  # the code itself is memory too: it is there before
        print(source.stem, *measure(source), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
MEGABYTES = 64


def write_each_kind(folder, rows):
    """A file of each kind in a folder; the weights in it."""
    state = {f"layer{i}": torch.full((rows, 1024), float(i)) for i in range(MEGABYTES // 4)}
    ballast = {"optimizer": {i: torch.zeros(rows, 1024) for i in range(MEGABYTES // 4)}}
    torch.save({"model": state} | ballast, folder / "torch.pth")
    save_file(state, folder / "safetensors.safetensors")
    with (folder / "detectron2.pkl").open("wb") as file:
        pickle.dump({"model": {name: value.numpy() for name, value in state.items()}}, file)
    return state


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """Large files of each kind, opened and rewritten: folder, and peaks of memory (opened, written) in megabytes."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "small").mkdir()
    write_each_kind(folder / "small", 4)
    state = write_each_kind(folder, 1024)
    files = [str(file) for file in folder.iterdir() if file.is_file()]
    done = subprocess.run([sys.executable, "-c", MEASURING, *files], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return folder, state, {kind: (float(opened), float(written)) for kind, opened, written in rows}


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_opening_reads_nothing_that_is_not_used(rewritten, kind):
    opened, _ = rewritten[2][kind]
    assert opened < 0.3 * MEGABYTES


@pytest.mark.parametrize("kind", ["torch", "safetensors", "detectron2"])
def test_rewriting_takes_the_weights_in_memory_once(rewritten, kind):
    """Mapped pages are counted; the torch file holds a training state as large as the weights."""
    folder, state, peaks = rewritten
    assert peaks[kind][1] < 1.3 * MEGABYTES
    loaded = load_file(folder / f"{kind}.out")
    assert all(torch.equal(torch.cat([loaded[f"{name}.{i}"] for i in range(4)]), state[name]) for name in state)
