"""Where the notebooks are: in a checkout, or copied from the package to a folder of the student's own."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

PACKED = Path(str(files("cavis"))) / "assets" / "lab"
"""In an installed package: the notebooks, and the widgets they import."""
MANIFEST = ".cavis-lab.json"
"""What each file looked like when it was copied: one that still does has not been edited."""


@dataclass(frozen=True)
class LaidOut:
    """What became of the files."""

    new: tuple[str, ...]
    updated: tuple[str, ...]
    """Older copies that nobody had touched."""
    kept: tuple[str, ...]
    """Edited by the student, so left alone."""


def in_checkout() -> Path | None:
    """The folder of the notebooks if the package runs from a checkout, with widgets beside it."""
    root = Path(str(files("cavis"))).parent
    notebooks = root / "notebooks"
    whole = all((root / name).exists() for name in ("pyproject.toml", "widgets/__init__.py", "notebooks"))
    return notebooks if whole else None


def lay_out(folder: Path, source: Path = PACKED) -> LaidOut:
    """Copy notebooks and widgets to ``folder``; never over a file that has been edited.

    A FileNotFoundError if the package came without notebooks, a NotADirectoryError if ``folder`` is a file.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"expected notebooks in {source}, found none: was cavis installed in full?")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"expected a folder for the notebooks, but {folder} is a file")
    manifest = folder / MANIFEST
    before = _read_manifest(manifest)
    fates: dict[str, list[str]] = {"new": [], "updated": [], "kept": []}
    for path in sorted(source.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        name, content = path.relative_to(source).as_posix(), path.read_bytes()
        target = folder / name
        wanted, found = _digest(content), _digest(target.read_bytes()) if target.exists() else None
        if found is not None and found not in (wanted, before.get(name)):
            fates["kept"].append(name)
            continue
        if found != wanted:
            fates["new" if found is None else "updated"].append(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        before[name] = wanted
    manifest.write_text(json.dumps(before, indent=1), encoding="utf-8")
    return LaidOut(*(tuple(names) for names in fates.values()))


def _read_manifest(path: Path) -> dict[str, str]:
    """What was copied; where that cannot be told, every file counts as edited."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in data.items()} if isinstance(data, dict) else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
