"""How sure a difference is: paired bootstrap over clips."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Interval(NamedTuple):
    """A mean and where it would lie with other clips."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``more`` or ``less`` where the interval leaves no doubt, else ``undecided``."""
        if self.low > 0:
            return "more"
        return "less" if self.high < 0 else "undecided"


def bootstrap(values: Float[np.ndarray, "clips"], draws: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one number a clip, with the percentile interval of resampled clips; NaNs are left out.

    For a paired comparison pass the differences, clip by clip. A ValueError without any number; one number alone has
    no interval (it reaches to infinity).
    """
    known = values[np.isfinite(values)]
    if len(known) == 0:
        raise ValueError("expected a number for at least one clip, got none")
    if len(known) == 1:
        return Interval(float(known[0]), -np.inf, np.inf)
    chosen = np.random.default_rng(seed).integers(0, len(known), (draws, len(known)))
    means = known[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(known.mean()), float(low), float(high))
