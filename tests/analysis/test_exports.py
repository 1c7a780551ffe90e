import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import clumps, table_of
from PIL import Image

from cavis.analysis import to_fiftyone, to_projector, vectors


def test_the_projectors_files_hold_the_embeddings_row_by_row(tmp_path):
    values, identities = clumps()
    table = table_of(values, identities)
    config = to_projector(table, tmp_path / "log", "core").read_text()
    files = dict(re.findall(r'(\w+): "(.*)"', config))
    numbers = np.loadtxt(tmp_path / "log" / files["tensor_path"], delimiter="\t")
    np.testing.assert_allclose(numbers, vectors(table, "core"), rtol=1e-5)
    told = pd.read_csv(tmp_path / "log" / files["metadata_path"], sep="\t")
    assert told["identity"].tolist() == identities.tolist()
    with pytest.raises(FileExistsError, match="there already"):
        to_projector(table, tmp_path / "log")


def test_without_fiftyone_a_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match="expected the package fiftyone"):
        to_fiftyone(table_of(*clumps()), lambda clip, frame: None)


def test_fiftyone_gets_a_sample_for_each_frame_and_relative_boxes(monkeypatch, tmp_path):
    """FiftyOne itself needs a database that is not here; its four classes are stood in for."""

    class Sample(dict):
        pass

    class Dataset(list):
        def __init__(self, name):
            self.name, self.add_sample = name, self.append

    standing_in = SimpleNamespace(Dataset=Dataset, Sample=Sample, Detection=dict, Detections=dict)
    monkeypatch.setitem(sys.modules, "fiftyone", standing_in)
    Image.new("RGB", (40, 20)).save(tmp_path / "0.png")
    values, identities = clumps(frames=2)
    table = table_of(values, identities, frames=np.tile([0, 1], 3))
    table[["x", "y", "width", "height"]] = (10, 5, 20, 10)
    dataset = to_fiftyone(table, lambda clip, frame: tmp_path / "0.png", "mine")
    assert (dataset.name, [sample["frame"] for sample in dataset]) == ("mine", [0, 1])
    for sample in dataset:
        detections = sample["tracks"]["detections"]
        assert [one["identity"] for one in detections] == [0, 1, 2]
        assert detections[0]["bounding_box"] == [0.25, 0.25, 0.5, 0.5]
    np.testing.assert_allclose(dataset[1]["tracks"]["detections"][2]["core"], values[5], rtol=1e-6)
