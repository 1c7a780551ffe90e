"""Looking into a model: its embeddings as a table, as maps, and as numbers.

:func:`collect` runs a model over clips and makes the table, :func:`tsne` and :func:`pca` draw it, :func:`separation`
measures what the drawing suggests, :func:`associate` compares two frames. Numpy and pandas out; the views of the
notebooks take it from there.
"""

from cavis.analysis.association import Association, associate
from cavis.analysis.collect import (
    LAYERS,
    NOBODY,
    collect,
    provenance,
    read_table,
    row_numbers,
    sightings,
    tabulate,
    vectors,
    write_table,
)
from cavis.analysis.exports import to_fiftyone, to_projector
from cavis.analysis.footage import Footage, Truth, of_dataset, open_footage, twins
from cavis.analysis.pictures import crop
from cavis.analysis.projection import Projection, pca, tsne
from cavis.analysis.separation import Measured, Separation, difference, mean_over_clips, nearest, purity, separation
from cavis.analysis.settings import fast

__all__ = [
    "LAYERS",
    "NOBODY",
    "Association",
    "Footage",
    "Measured",
    "Projection",
    "Separation",
    "Truth",
    "associate",
    "collect",
    "crop",
    "difference",
    "fast",
    "mean_over_clips",
    "nearest",
    "of_dataset",
    "open_footage",
    "pca",
    "provenance",
    "purity",
    "read_table",
    "row_numbers",
    "separation",
    "sightings",
    "tabulate",
    "to_fiftyone",
    "to_projector",
    "tsne",
    "twins",
    "vectors",
    "write_table",
]
