"""A table of embeddings for other people's viewers: TensorBoard's projector and FiftyOne."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cavis.analysis.collect import Layer, vectors

_TOLD = ("clip", "frame", "track", "category", "score", "identity", "true_category")


def to_projector(table: pd.DataFrame, folder: Path, layer: Layer = "context_aware") -> Path:
    """Write a log folder for TensorBoard's projector (``tensorboard --logdir FOLDER``); returns its configuration file.

    Text files that need no other package to be written. A FileExistsError if the folder has a configuration already.
    """
    config = folder / "projector_config.pbtxt"
    if config.exists():
        raise FileExistsError(f"{config} is there already; expected a folder without a projector's files")
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "tensors.tsv", vectors(table, layer), delimiter="\t", fmt="%.6g")
    table[list(_TOLD)].to_csv(folder / "metadata.tsv", sep="\t", index=False)
    parts = {"tensor_name": layer, "tensor_path": "tensors.tsv", "metadata_path": "metadata.tsv"}
    lines = "".join(f'  {name}: "{value}"\n' for name, value in parts.items())
    config.write_text(f"embeddings {{\n{lines}}}\n", encoding="utf-8")
    return config


def to_fiftyone(table: pd.DataFrame, picture: Callable[[str, int], Path], name: str = "cavis") -> Any:
    """Make a FiftyOne dataset: a sample for each frame, a detection with both embeddings for each row.

    ``picture(clip, frame)`` is the image file of a frame. An ImportError says what is missing where FiftyOne, which
    does not come with cavis, is not installed.
    """
    try:
        import fiftyone  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("expected the package fiftyone, which is not installed: pip install fiftyone") from error
    dataset = fiftyone.Dataset(name)
    for (clip, frame), rows in table.groupby(["clip", "frame"], sort=False):  # pyright: ignore[reportGeneralTypeIssues]
        file = picture(clip, frame)
        with Image.open(file) as image:
            width, height = image.size
        sample = fiftyone.Sample(filepath=str(file), clip=clip, frame=int(frame))
        detections = [_detection(fiftyone, row, (width, height)) for row in rows.itertuples()]
        sample["tracks"] = fiftyone.Detections(detections=detections)
        dataset.add_sample(sample)
    return dataset


def _detection(fiftyone: Any, row: Any, size: tuple[int, int]) -> Any:
    width, height = size
    return fiftyone.Detection(
        label=row.category,
        confidence=float(row.score),
        index=int(row.track),
        bounding_box=[row.x / width, row.y / height, row.width / width, row.height / height],
        identity=int(row.identity),
        core=row.core.tolist(),
        context_aware=row.context_aware.tolist(),
    )
