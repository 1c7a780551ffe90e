"""Commands in several processes, as torchrun and accelerate start them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cavis.checkpoints.files import read_training
from cavis.training.log import read_log

HERE = Path(__file__).parent
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"),
}
STEPS = 30


def start(launcher: str, *arguments: object) -> subprocess.Popen:
    """A command in two processes."""
    return subprocess.Popen(
        [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "nano_command", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(launcher: subprocess.Popen) -> tuple[str, str]:
    """What it said."""
    try:
        return launcher.communicate(timeout=400)
    finally:
        launcher.terminate()  # it takes the processes with it


@pytest.mark.slow
def test_two_interrupted_processes_leave_one_checkpoint_that_resumes(tmp_path: Path) -> None:
    options = ("train", "--preset", "nano", "--stage", "segmenter", "--steps", STEPS, "--device", "cpu")
    launcher, log = start("torchrun", *options, "--out", tmp_path), tmp_path / "log.jsonl"
    deadline = time.monotonic() + 400
    while not (log.exists() and read_log(log)) and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    launcher.send_signal(signal.SIGINT)
    _, errors = end(launcher)
    assert launcher.returncode != 0, errors
    done = len(read_log(log))
    assert 1 <= done < STEPS
    assert read_training(tmp_path / "latest.pt")["done"] == done
    again = start("accelerate", *options, "--out", tmp_path, "--resume")
    said, errors = end(again)
    assert again.returncode == 0, errors
    assert said.count(f"{STEPS} of {STEPS} steps") == 1
    assert [line["step"] for line in read_log(log)] == list(range(1, STEPS + 1))
