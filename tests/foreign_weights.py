"""Checkpoints as strangers would have written them, of the smallest model."""

import io

import torch
from nano import nano_model

from cavis.checkpoints.official import origin
from cavis.model import Cavis


def released(model: Cavis) -> dict[str, torch.Tensor]:
    """A model's weights as the released code would have named and joined them."""
    laplacian = torch.tensor([[[[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]]])
    state: dict[str, torch.Tensor] = {"sem_seg_head.predictor.laplacian": laplacian}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for name, value in model.state_dict().items():
        source = origin(name, "released")
        assert source is not None, name
        if source.part is None:
            state[source.key] = value
        else:
            thirds.setdefault(source.key, {})[source.part] = value
    return state | {key: torch.cat([parts[part] for part in range(3)]) for key, parts in thirds.items()}


def released_file(seed: int) -> bytes:
    """A released checkpoint of the nano model's tracker stage: 0.6 MB of weights and 2 MB of training state."""
    file = io.BytesIO()
    moments = torch.zeros(500_000)
    torch.save({"model": released(nano_model(seed)), "optimizer": {0: moments}, "iteration": 7}, file)
    return file.getvalue()
