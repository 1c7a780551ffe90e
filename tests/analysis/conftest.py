"""Clips, a model and tables that the tests of the analysis share."""

from collections.abc import Callable

import numpy as np
import pytest
from nano import HEIGHT, WIDTH, Squares, consecutive, nano_config, nano_model

from cavis.analysis import Footage, Truth
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.config import InferenceConfig
from cavis.video.sources import ArraySource


@pytest.fixture(scope="session")
def ready() -> ReadyModel:
    about = ModelFile("nano", "tiny", nano_config(), "tracker", "")
    inference = InferenceConfig(short_side=HEIGHT, max_side=WIDTH, top_k=6, window=2)
    return ReadyModel(nano_model(), about, inference, "I have seen nothing.")


@pytest.fixture(scope="session")
def squares() -> Callable[[int], Footage]:
    """Footage of squares, by seed: 6 frames with their annotations."""

    def make(seed: int) -> Footage:
        clip = Squares().draw(np.random.default_rng(seed), consecutive(6))
        frames = clip.frames.permute(0, 2, 3, 1).numpy()
        masks = clip.targets.masks.numpy()

        def truth(t: int) -> Truth:
            return Truth((10, 11, 12), ("red", "green", "blue"), masks[:, t])

        return Footage(f"squares {seed}", lambda: ArraySource(frames, fps=10), truth)

    return make
