"""Peak memory of a run, measured in a process of its own (Linux: the kernel's high-water mark is read)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contestants import CONTESTANTS, Who, contestant
from benchmarks.setting import Setting, pictures, random_model

STATUS = Path("/proc/self/status")
ROOT = Path(__file__).parents[1]


def peak_memory(who: Who, frames: int, setting: Setting) -> int:
    """Bytes that a contestant needs at most to go through a clip, beyond what it holds with the model built."""
    return peak_of("benchmarks.memory", who, str(frames), told=setting.to_json())


def peak_of(module: str, *arguments: str, told: str = "") -> int:
    """The bytes that a child process, ``python -m module arguments``, says it needed; ``told`` is what it may read.

    A RuntimeError repeats what the child said if it fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    child = subprocess.run(command, input=told, capture_output=True, text=True, check=False, cwd=ROOT)
    if child.returncode != 0:
        raise RuntimeError(
            f"expected the peak memory of {module} {' '.join(arguments)}, but its process failed:\n{child.stderr}"
        )
    return int(child.stdout.split()[-1])


def say_peak(work: Callable[[], object]) -> None:
    """What the child prints: its peak over ``work`` beyond what it held before, which must not have been more."""
    base = _status("VmRSS")
    work()
    print(_status("VmHWM") - base)


def _status(name: str) -> int:
    """A number of bytes that the kernel knows of this process."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"expected {name} in {STATUS}, found none")


def main(arguments: list[str], setting: Setting) -> None:
    """What the child does: measure a contestant."""
    names: dict[str, Who] = {name: name for name in CONTESTANTS}
    who, frames = names[arguments[0]], int(arguments[1])
    run = contestant(who, setting, random_model(setting.model, "refiner" if who == "offline" else "tracker"))
    say_peak(lambda: run(pictures(setting, frames)))


if __name__ == "__main__":
    main(sys.argv[1:], Setting.from_json(sys.stdin.read()))
