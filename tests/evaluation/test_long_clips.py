"""While a long clip is evaluated, what torch holds does not grow with its length."""

import gc

import numpy as np
import pytest
import torch
from nano import CATEGORIES, nano_config, nano_model, nano_preset
from PIL import Image

from cavis import rle
from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.data.annotated import FrameFiles
from cavis.data.segmentations import PackedMasks
from cavis.data.ytvis_json import Annotation, Video, YtvisDataset
from cavis.evaluation.run import evaluate
from cavis.inference.online import OnlinePredictor

SIDE = 32


def long_clip(folder, frames):
    """One video of tiny frames with one object; few files, shown again and again."""
    for number in range(3):
        Image.new("RGB", (SIDE, SIDE), (40 * number, 90, 200)).save(folder / f"{number}.png")
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[4:20, 4:20] = True
    packed = PackedMasks([rle.encode(mask)] * frames, SIDE, SIDE)
    there = np.ones(frames, dtype=bool)
    one = Annotation(1, 1, False, packed, there, np.full(frames, 256.0))
    names = tuple(f"{t % 3}.png" for t in range(frames))
    video = Video(1, "long", names, SIDE, SIDE, (one,))
    return YtvisDataset(folder / "a.json", folder, dict(enumerate(CATEGORIES, 1)), (video,), annotated=True)


def held() -> int:
    """Bytes of all tensors that are alive, shared memory counted once."""
    alive = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor):  # isinstance asks some lazy objects what they are
            storage = one.untyped_storage()
            alive[storage.data_ptr()] = storage.nbytes()
    return sum(alive.values())


def most_held(folder, frames, monkeypatch) -> int:
    """The most that torch held beside the model when a frame was read, sampled."""
    folder.mkdir()
    model = nano_model()
    about = ModelFile("nano", "tiny", nano_config(), "tracker", "")
    predictor = OnlinePredictor(ReadyModel(model=model, about=about, inference=nano_preset().inference, world=""))
    before, seen = held(), []
    read = FrameFiles._read

    def watched(source, index):
        if index % (frames // 8) == frames // 8 - 1:
            seen.append(held() - before)
        return read(source, index)

    monkeypatch.setattr(FrameFiles, "_read", watched)
    found = evaluate(long_clip(folder, frames), predictor.run_instances, top_k=4)
    monkeypatch.setattr(FrameFiles, "_read", read)
    assert len(found.predictions[0].masks) == frames
    assert len(seen) >= 8
    return max(seen)


@pytest.mark.parametrize("frames", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path, monkeypatch, frames):
    short = most_held(tmp_path / "short", 24, monkeypatch)
    assert most_held(tmp_path / "long", frames, monkeypatch) < 1.2 * short
