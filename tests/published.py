"""The nano model as if others had published it; as a program: the web page, with such models in its list.

``python tests/published.py ADDRESS [options of app.py]``: of the two models that can be downloaded, one is at ADDRESS.
"""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import torch
from nano import nano_preset

from cavis import presets
from cavis.checkpoints import download, zoo
from cavis.checkpoints.download import Url
from cavis.checkpoints.files import ModelFile, save_model
from cavis.checkpoints.zoo import ZooEntry, cached_path
from cavis.config import Preset, Stage
from cavis.model import build_model


def entry_at(address: str, name: str = "nano_tracker", stage: Stage = "tracker") -> ZooEntry:
    """An entry whose file is at ``address``, with the terms of a real one."""
    source = Url(f"{address}/model_final.pth")
    return replace(zoo.ZOO["ovis_r50_tracker"], name=name, preset="nano", stage=stage, source=source)


def panoptic_preset(**rules: object) -> Preset:
    """The last of the nano model's three classes is stuff."""
    preset = nano_preset()
    inference = replace(preset.inference, task="panoptic", **{"min_score": 0.0, "min_visible_share": 0.0} | rules)
    return replace(preset, name="nano_panoptic", model=replace(preset.model, stuff=1), inference=inference)


def put_into_cache(entry: ZooEntry, preset: Preset, seed: int = 3) -> Path:
    """An untrained model as if it had been downloaded."""
    torch.manual_seed(seed)
    model = build_model(preset.model, entry.stage)
    for name, module in model.named_modules():
        if name.endswith("class_head"):  # so that it is sure that it sees something
            torch.nn.init.normal_(module.weight)
            module.bias.data[-1] = -9.0
    about = ModelFile(entry.name, entry.preset, preset.model, entry.stage, "imported from nowhere")
    path = cached_path(entry)
    save_model(path, model, about)
    return path


if __name__ == "__main__":
    from weight_server import nobody_listens

    root, address = Path(__file__).parents[1], sys.argv[1]
    presets.PRESETS["nano"] = nano_preset
    for one in (entry_at(address), entry_at(nobody_listens(), "nano_unreachable")):
        zoo.ZOO[one.name] = one
    download.RETRIES = 0
    sys.path.insert(0, str(root))
    sys.argv = ["app.py", *sys.argv[2:]]
    runpy.run_path(str(root / "app.py"), run_name="__main__")
