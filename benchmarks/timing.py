"""Times that can be compared: all contestants in turn, again and again, and the median of each."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    work: Mapping[str, Callable[[], object]],
    repeats: int,
    done: Callable[[str], None] = lambda name: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each; everyone warms up once, then they take turns, so that all see the same machine.

    ``done`` is told who has just finished, warm-ups included. ``clock``: ``time.process_time`` leaves out what other
    programs take of the machine, and is fair between works of one thread.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(repeats + 1):
        for name, run in work.items():
            start = clock()
            run()
            if round_number > 0:
                seconds[name].append(clock() - start)
            done(name)
    return {name: statistics.median(values) for name, values in seconds.items()}
