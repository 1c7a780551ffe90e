"""The names and shapes of the released checkpoints: all are found, all are explained."""

from ast import literal_eval
from pathlib import Path

import pytest
import torch
from golden_sets import FOLDER, preset_of

from cavis.checkpoints.importing import plan_import, stage_of

LISTS = [path for path in sorted(FOLDER.glob("keys/**/*.txt")) if not path.name.endswith(".buffers.txt")]


def state_of(path: Path) -> dict[str, torch.Tensor]:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {key: torch.empty(literal_eval(shape), device="meta") for key, shape, *_ in rows}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: str(path.relative_to(FOLDER / "keys").with_suffix("")))
def test_every_released_name_has_its_place(path):
    state = state_of(path)
    config = str(path.relative_to(FOLDER / "keys").with_suffix(""))
    plan = plan_import(state, preset_of(config).model, stage_of(state))
    assert plan.missing == plan.misfits == plan.unexplained == ()
    assert plan.used + len(plan.ignored) == len(state)
    reasons = {reason for _, reason in plan.ignored}
    assert reasons <= {
        "a constant",
        "of the loss",
        "computed from the window's size",
        "used in DINOv2's own training only",
        "the ViT's last norm, which the adapter does not use",
    }
