"""Open an annotated data set, whichever it is."""

from pathlib import Path

from cavis.categories import CategoryMap
from cavis.data.annotated import AnnotatedVideos
from cavis.data.coco import open_coco
from cavis.data.coco_panoptic import open_coco_panoptic
from cavis.data.faults import DataError
from cavis.data.layouts import Format, locate
from cavis.data.vipseg import open_vipseg
from cavis.data.vspw import open_vspw
from cavis.data.ytvis_json import open_ytvis


def open_annotated(
    path: str | Path,
    split: str | None = None,
    *,
    form: Format | None = None,
    categories: CategoryMap | None = None,
    skip_faulty: bool = False,
) -> AnnotatedVideos:
    """Open a folder or an annotation file of any of the data sets of the paper, or one of your own in such a form.

    The form is recognised by content; ``form`` is needed only where a folder has several (COCO's panoptic annotations
    beside its instances). ``split`` and ``skip_faulty``: as in ``open_ytvis``; ``categories``: as in ``open_coco``.
    """
    file, found = locate(path, split, form)
    if found == "coco":
        return open_coco(file, categories=categories, skip_faulty=skip_faulty)
    if categories is not None:
        raise DataError(f"expected images in COCO's form to give other categories to, got {file} in the form {found!r}")
    if found == "vspw":
        return open_vspw(path if file.is_dir() else file, skip_faulty=skip_faulty)
    openers = {"ytvis": open_ytvis, "vipseg": open_vipseg, "coco_panoptic": open_coco_panoptic}
    return openers[found](file, skip_faulty=skip_faulty)
