"""Peak memory of a run, measured in a process of its own (Linux: the kernel's high-water mark is read)."""

import subprocess
import sys
from pathlib import Path

from benchmarks.contestants import CONTESTANTS, Who, contestant
from benchmarks.setting import Setting, pictures, random_model

STATUS = Path("/proc/self/status")
ROOT = Path(__file__).parents[1]


def peak_memory(who: Who, frames: int, setting: Setting) -> int:
    """Bytes that a child process needs at most to go through a clip, beyond what it holds with the model built.

    A RuntimeError repeats what the child said if it fails.
    """
    command = [sys.executable, "-m", "benchmarks.memory", who, str(frames)]
    child = subprocess.run(command, input=setting.to_json(), capture_output=True, text=True, check=False, cwd=ROOT)
    if child.returncode != 0:
        raise RuntimeError(
            f"expected the peak memory of {who} over {frames} frames, but its process failed:\n{child.stderr}"
        )
    return int(child.stdout.split()[-1])


def measure_here(who: Who, frames: int, setting: Setting) -> int:
    """The same in this process, which must not have done anything before that was larger."""
    run = contestant(who, setting, random_model(setting.model, "refiner" if who == "offline" else "tracker"))
    base = _status("VmRSS")
    run(pictures(setting, frames))
    return _status("VmHWM") - base


def _status(name: str) -> int:
    """A number of bytes that the kernel knows of this process."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"expected {name} in {STATUS}, found none")


def main(arguments: list[str], setting: str) -> None:
    """What the child does: measure and print."""
    names: dict[str, Who] = {name: name for name in CONTESTANTS}
    print(measure_here(names[arguments[0]], int(arguments[1]), Setting.from_json(setting)))


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin.read())
