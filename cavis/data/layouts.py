"""Which data set lies at a path: recognised by its content, not by its name.

A folder is searched for annotation files in the places where the data sets of the paper have them; what a file is, its
first entries tell.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from cavis.data.faults import DataError
from cavis.data.json_stream import Entry, entries

Format = Literal["ytvis", "coco", "coco_panoptic", "vipseg", "vspw"]
FORMATS: tuple[Format, ...] = get_args(Format)

SPLITS = ("train", "valid", "val", "test")
_PLAIN = ("annotations.json", "instances.json", "panoptic.json", "panoptic_gt.json", "panoptic_gt_VIPSeg.json")
_SPLIT = (
    "{0}.json",
    "{0}/instances.json",
    "{0}/annotations.json",
    "annotations/annotations_{0}.json",
    "annotations_{0}.json",
    *("annotations/instances_{0}.json", "annotations/instances_{0}2017.json", "instances_{0}.json"),
    *("annotations/panoptic_{0}.json", "annotations/panoptic_{0}2017.json", "panoptic_{0}.json"),
    *("panoptic_gt_VIPSeg_{0}.json", "panoptic_gt_{0}.json", "VIPSeg_720P/panoptic_gt_VIPSeg_{0}.json"),
)
_KINDS: dict[str, Format] = {
    "segmentations": "ytvis",
    "segmentation": "coco",
    "segments_info": "coco_panoptic",
    "annotations": "vipseg",
}


class Located(NamedTuple):
    """An annotation file, and the form it has."""

    file: Path
    """A json file; for VSPW the text file that lists the videos, or the folder ``data`` where there is no such list."""
    format: Format


def recognise(path: str | Path) -> Format:
    """The form of a data set, from a folder or an annotation file.

    A folder that has several (COCO's instances and panoptic annotations) is taken for the first of ``FORMATS``. A
    DataError for what is no data set.
    """
    path = Path(path)
    if not path.is_dir():
        return _of_file(path)
    found = [located.format for located in _candidates(path, None)]
    if not found:
        raise _nothing(path, None)
    return _first(found)


def locate(path: str | Path, split: str | None = None, form: Format | None = None) -> Located:
    """The annotation file of a folder, or the file itself; with ``form`` only files of that form count.

    ``split`` says which one where the folder has several, and has no meaning where it has none; ``val`` and ``valid``
    are the same. A DataError where there is none, or where there are several to choose from.
    """
    path = Path(path)
    if path.is_file():
        found = _of_file(path)
        if form not in (None, found):
            raise DataError(f"{path}: expected a data set in the form {form!r}, got one in the form {found!r}")
        return Located(path, found)
    if not path.is_dir():
        raise DataError(f"expected a folder of annotated videos, got {path}, which does not exist")
    own = path.parent / f"{path.name}.json"
    if path.name in SPLITS and own.is_file():
        return locate(own, None, form)
    candidates = list(_candidates(path, split))
    wanted = form or (_first([one.format for one in candidates]) if candidates else None)
    fitting = [one for one in candidates if one.format == wanted]
    if not fitting:
        if candidates:
            raise DataError(f"{path}: expected a data set in the form {form!r}, got one in {candidates[0].format!r}")
        raise _nothing(path, split)
    plain = [one for one in fitting if one.file.name in _PLAIN and one.file.parent == path]
    if plain and (split is None or len(plain) == len(fitting)):
        return plain[0]
    named = {split_of(one.file): one for one in reversed(fitting) if one not in plain}
    if len(named) > 1:
        order = sorted(named, key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS))
        raise DataError(f"{path} has several splits ({', '.join(order)}): say which one to open")
    return next(iter(named.values()))


def splits(path: str | Path) -> tuple[str, ...]:
    """The splits that a folder has annotations of, in the order of ``SPLITS``.

    None for a file, for the folder of one split, and where one file holds everything.
    """
    path = Path(path)
    if not path.is_dir() or (path.name in SPLITS and (path.parent / f"{path.name}.json").is_file()):
        return ()
    found = list(_candidates(path, None))
    form = _first([one.format for one in found]) if found else None
    files = [one.file for one in found if one.format == form]
    if any(file.name in _PLAIN and file.parent == path for file in files):
        return ()
    named = {split_of(file) for file in files}
    return tuple(name for name in SPLITS if name in named)


def split_of(file: Path) -> str:
    """The split an annotation file is named for; empty where its name has none."""
    for word in (*file.stem.replace("2017", "").split("_"), file.parent.name):
        if word in SPLITS:
            return word
    return ""


def _candidates(folder: Path, split: str | None) -> Iterator[Located]:
    """The annotation files of a folder, those without a split first."""
    splits = SPLITS if split is None else _aliases(split)
    places = [*_PLAIN, *(form.format(name) for name in splits for form in _SPLIT)]
    broken: list[DataError] = []
    found = False
    for place in places:
        file = folder / place
        if file.is_file():
            try:
                yield Located(file, _of_file(file))
                found = True
            except DataError as error:
                broken.append(error)
    if (data := _vspw_folder(folder)) is not None:
        lists = [folder / f"{name}.txt" for name in splits if (folder / f"{name}.txt").is_file()]
        yield from (Located(file, "vspw") for file in lists or [data])
        found = True
    if broken and not found:
        raise broken[0]


def _first(found: Sequence[str]) -> Format:
    return next(form for form in FORMATS if form in found)


def _aliases(split: str) -> tuple[str, ...]:
    return ("valid", "val") if split in ("valid", "val") else (split,)


def _vspw_folder(folder: Path) -> Path | None:
    data = folder / "data"
    if data.is_dir() and any((video / "origin").is_dir() for video in data.iterdir()):
        return data
    return None


def _of_file(path: Path) -> Format:
    if not path.is_file():
        raise DataError(f"expected a folder or an annotation file, got {path}, which does not exist")
    if path.suffix == ".txt" and _vspw_folder(path.parent) is not None:
        return "vspw"
    seen: set[str] = set()
    for entry in entries(path):
        seen.add(entry.key)
        found = _of_entry(entry)
        if found is not None:
            return found
    if "images" in seen:
        return "coco"
    if "videos" in seen:
        return "ytvis"
    raise DataError(
        f'{path}: expected the lists "videos" (YouTube-VIS, VIPSeg) or "images" (COCO), "annotations" and "categories"'
    )


def _of_entry(entry: Entry) -> Format | None:
    """What one entry gives away about the file; None if nothing."""
    if not isinstance(entry.value, dict):
        return None
    if entry.key == "videos":
        if "file_names" in entry.value:
            return "ytvis"
        return "vipseg" if "images" in entry.value else None
    if entry.key == "annotations":
        return next((form for name, form in _KINDS.items() if name in entry.value), None)
    return None


def _nothing(path: Path, split: str | None) -> DataError:
    forms = ", ".join((*_PLAIN[:2], *(form.format(split or "<split>") for form in _SPLIT)))
    return DataError(
        f"expected annotations in {path} as one of {forms}, or VSPW's data/<video>/origin; found none of them"
    )
