"""The checkpoints that others have published, by name: where they are, what the paper says of them, how to get them.

Importing this module does not import torch.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from filelock import FileLock

from cavis.checkpoints.download import (
    DownloadError,
    Drive,
    Hub,
    Progress,
    Source,
    Url,
    compare,
    fetch,
    fingerprint,
    read_record,
    remember,
)
from cavis.config import Stage

WEIGHTS = {"r50": 200, "swint": 190, "swins": 275, "swinb": 430, "swinl": 900, "vitl": 1400}
"""Megabytes of a model's weights, about, by backbone."""


@dataclass(frozen=True)
class Numbers:
    """What the paper reports of a checkpoint (Tables 1 and 2), as fractions; None where it reports nothing."""

    ap: float | None = None
    """Video instance segmentation."""
    vpq: float | None = None
    """Video panoptic quality."""
    stq: float | None = None
    """Segmentation and tracking quality."""


@dataclass(frozen=True)
class Terms:
    """Under what conditions weights may be used, and what to cite."""

    licence: str
    citation: str
    """BibTeX."""


@dataclass(frozen=True)
class ZooEntry:
    """One published checkpoint."""

    name: str
    data: str
    """The data set it was trained on."""
    backbone: str
    preset: str
    """Whose model it becomes."""
    stage: Stage
    source: Source
    terms: Terms
    paper: Numbers = Numbers()

    @property
    def megabytes(self) -> int:
        """Of its weights, about."""
        return WEIGHTS.get(self.backbone, 200)

    def row(self) -> tuple[str, ...]:
        """Name, data, backbone, stage, AP, VPQ, STQ, where it is published, and a star once it is here."""
        numbers = (self.paper.ap, self.paper.vpq, self.paper.stq)
        shown = ("" if value is None else f"{value:.3f}" for value in numbers)
        where = {Drive: "Drive", Hub: "hub", Url: "web"}[type(self.source)]
        return self.name, self.data, self.backbone, self.stage, *shown, where, "*" if is_cached(self) else ""

    def credit(self) -> str:
        """The licence of the weights, and what to cite."""
        return f"licence: {self.terms.licence}\ncite:\n{self.terms.citation}"

    def card(self) -> str:
        """All that is known of it, a line for each fact."""
        numbers = {"AP": self.paper.ap, "VPQ": self.paper.vpq, "STQ": self.paper.stq}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items() if value is not None)
        record = read_record(_record(self))
        came = f"{record.size:,} bytes came on {record.day}" if record else "its file may have more beside them"
        facts = {
            "trained on": f"{self.data}, {self.backbone}, {self.stage} stage; preset {self.preset}",
            "the paper's numbers": shown or "none",
            "address": self.source.address,
            "size": f"about {self.megabytes} MB of weights; {came}",
            "cached": str(cached_path(self)) if is_cached(self) else f"no; cavis zoo get {self.name} fetches it",
        }
        return "\n".join((self.name, *(f"{name}: {fact}" for name, fact in facts.items()), self.credit()))


class UnknownModelError(ValueError):
    """A name that no published checkpoint has."""


_CAVIS_CITATION = """@misc{lee2024cavis,
  title = {Context-Aware Video Instance Segmentation},
  author = {Lee, Seunghun and Seo, Jiwan and Han, Kiljoon and Choi, Minwoo and Im, Sunghoon},
  year = {2024},
  eprint = {2407.03010},
  archivePrefix = {arXiv}
}"""
_MASK2FORMER_CITATION = """@inproceedings{cheng2022mask2former,
  title = {Masked-attention Mask Transformer for Universal Image Segmentation},
  author = {Cheng, Bowen and Misra, Ishan and Schwing, Alexander G. and Kirillov, Alexander and Girdhar, Rohit},
  booktitle = {CVPR},
  year = {2022}
}"""
_DINOV2_CITATION = """@misc{oquab2023dinov2,
  title = {DINOv2: Learning Robust Visual Features without Supervision},
  author = {Oquab, Maxime and Darcet, Timoth{\\'e}e and Moutakanni, Th{\\'e}o and others},
  year = {2023},
  eprint = {2304.07193},
  archivePrefix = {arXiv}
}"""
_CAVIS_LICENCE = (
    "The authors' repository (github.com/Seung-Hun-Lee/CAVIS) is under the MIT licence and names no other one for the "
    "weights. They were trained from {start}, and on data sets with terms of their own: ask the authors before "
    "commercial use."
)
_FROM_MASK2FORMER = "Mask2Former's COCO weights, of which its model zoo says CC BY-NC 4.0 (no commercial use)"
_FROM_DVIS = "COCO weights published with DVIS++, whose licence is not known here"
_MASK2FORMER = Terms(
    "Mask2Former's model zoo says CC BY-NC 4.0 of the weights (no commercial use); its code is under the MIT licence. "
    "Whether the weights are too was asked there (facebookresearch/Mask2Former#204), without an answer that is known "
    "here.",
    _MASK2FORMER_CITATION,
)
_DINOV2 = Terms("The authors released code and weights under the Apache licence 2.0.", _DINOV2_CITATION)


_ONLINE: dict[str, tuple[str, Numbers]] = {
    "ytvis19_r50": ("1Dqyynn6PaO-t2Xz5J4SZx5SHDtcd_ZZy", Numbers(0.557)),
    "ytvis19_swinl": ("1Y1KZx5kjv6ntEEVhbz-ShBUQhbjCTn81", Numbers(0.660)),
    "ytvis19_vitl": ("1qQoP3CZAUqPnOjoXVsaqROJASL_TVPN2", Numbers(0.689)),
    "ytvis21_r50": ("1Dn3BMwA7XkDplgaHztlEiArXODmLI5yI", Numbers(0.505)),
    "ytvis21_swinl": ("19W6FUKTMevsYme91MemwcCQyyij9w21G", Numbers(0.611)),
    "ytvis21_vitl": ("11yurWh7kBhE5x-GRbn0m1yoj0J9oVocK", Numbers(0.646)),
    "ovis_r50": ("1u_0SYvI8R1D4-myzfbOCVSz7z4fiYVH2", Numbers(0.376)),
    "ovis_swinl": ("18inauV1Qaxiu_WMsG6uCB32uHVvQ376M", Numbers(0.486)),
    "ovis_vitl": ("17tCFLFq9Orz2VlJACO4uM8NZHE8E943u", Numbers(0.532)),
    "vipseg_r50": ("16bxuQ-fkWJcrCa6mJOngl6_Gf4oDsL3M", Numbers(vpq=0.424, stq=0.397)),
    "vipseg_vitl": ("1Cc-Bakc4WK3bmDhKSt4VKYaf3B95EGXN", Numbers(vpq=0.569, stq=0.510)),
}
_OFFLINE: dict[str, tuple[str, Numbers]] = {
    "ytvis19_vitl": ("1qVD2J1n4uvuWLr-Jj_8IWbF0ssC-ijR4", Numbers(0.694)),
    "ytvis21_vitl": ("1QMNy0C-QTeEXd40lUiL30d85gUrSq66V", Numbers(0.653)),
    "ovis_vitl": ("1sK--0oONWRwgUX42KQ5FJ9ovwRk3xxIs", Numbers(0.571)),
    "vipseg_r50": ("1vopy3g1PszEy3uveXc8cSW8Dp76UJx-7", Numbers(vpq=0.453, stq=0.453)),
    "vipseg_vitl": ("1uhYuwCPRlZlN3Q0YjMBGH_br13R9m6cr", Numbers(vpq=0.585, stq=0.561)),
}
_SEGMENTERS: dict[str, tuple[str, Numbers]] = {
    "ytvis19_r50": ("1y2R4MKQqAapuiIU080_ncqURtvLb7nLW", Numbers()),
    "ytvis19_swinl": ("1C4nwhP_KJ1M8z8ZIe9rqs4wKB0gfAcCD", Numbers()),
    "ytvis19_vitl": ("1CDvEBW5kzjmbh6kDWfm5j0nrYLSLAa6c", Numbers()),
    "ytvis21_r50": ("1M1ql3COhFSchej57wjVWlHycoAy0RRT5", Numbers()),
    "ytvis21_swinl": ("1If5OIH3S4FY6n6ymSumP8u4pPwDgHva1", Numbers()),
    "ytvis21_vitl": ("1zOrxbbixTNwq_CIfHttUX0N1kjujMnZr", Numbers()),
    "ovis_r50": ("1UOpS6Y7xvynVdKp9otj7vg8KvMx3qJH-", Numbers()),
    "ovis_swinl": ("1eXSZ7-Z12g3l0jpWTh7b9Mj9fqMy86mj", Numbers()),
    "ovis_vitl": ("12HHazDbQ6fA-_zy4H57ch00ETyQwRJM_", Numbers()),
    "vipseg_r50": ("1BDC36tsxtib7Ys-k23MAnEShPeqdobGN", Numbers()),
    "vipseg_vitl": ("12r1oWQFotkPROn6171N8CNyH2RePdZ5j", Numbers()),
}
_COCO = "https://dl.fbaipublicfiles.com/maskformer/mask2former/coco"
_STARTING_POINTS: dict[str, str] = {
    "coco_r50": f"{_COCO}/instance/maskformer2_R50_bs16_50ep/model_final_3c8ec9.pkl",
    "coco_swinl": f"{_COCO}/instance/maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_e5f453.pkl",
    "coco_panoptic_r50": f"{_COCO}/panoptic/maskformer2_R50_bs16_50ep/model_final_94dc52.pkl",
}
_DINOV2_VITL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"


def _released(preset: str, stage: Stage, drive_id: str, paper: Numbers) -> ZooEntry:
    data, backbone = preset.split("_")
    licence = _CAVIS_LICENCE.format(start=_FROM_DVIS if backbone == "vitl" else _FROM_MASK2FORMER)
    terms = Terms(licence, _CAVIS_CITATION)
    return ZooEntry(f"{preset}_{stage}", data, backbone, preset, stage, Drive(drive_id), terms, paper)


def _hub_model(size: str) -> ZooEntry:
    source = Hub(f"facebook/mask2former-swin-{size}-coco-instance", "model.safetensors")
    name = f"mask2former_swin_{size}_coco"
    return ZooEntry(name, "coco", f"swin{size[0]}", name, "segmenter", source, _MASK2FORMER)


def _all_entries() -> tuple[ZooEntry, ...]:
    stages: dict[Stage, dict[str, tuple[str, Numbers]]] = {
        "segmenter": _SEGMENTERS,
        "tracker": _ONLINE,
        "refiner": _OFFLINE,
    }
    released = [_released(preset, stage, *row) for stage, rows in stages.items() for preset, row in rows.items()]
    coco = [
        ZooEntry(name, "coco", name.split("_")[-1], name, "segmenter", Url(address), _MASK2FORMER)
        for name, address in _STARTING_POINTS.items()
    ]
    vit = ZooEntry("dinov2_vitl", "LVD-142M", "vitl", "ovis_vitl", "segmenter", Url(_DINOV2_VITL), _DINOV2)
    return (*released, *map(_hub_model, ("tiny", "small", "base", "large")), *coco, vit)


ZOO: Mapping[str, ZooEntry] = {entry.name: entry for entry in _all_entries()}
"""All entries by name: the 27 released ones (segmenters, then the online and the offline models), then what training
starts from: Mask2Former on COCO, and DINOv2, which is a backbone only."""


def find(name: str) -> ZooEntry:
    """The entry of a name, hyphens or underscores; an UnknownModelError names the nearest ones."""
    asked = name.replace("-", "_")
    if asked not in ZOO:
        near = nearest(asked, ZOO)
        advice = f"a model such as {', '.join(near)}" if near else "a name that `cavis zoo` lists"
        raise UnknownModelError(f"expected {advice}; got {name!r}")
    return ZOO[asked]


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three of ``names``: those that begin with ``name``, else those that are written nearly like it."""
    names = list(names)
    return [one for one in names if one.startswith(name)][:3] or get_close_matches(name, names, n=3, cutoff=0.55)


def cache_folder() -> Path:
    """Where imported models are kept: ``$CAVIS_CACHE``, else ``cavis`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    chosen = os.environ.get("CAVIS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cavis"


def cached_path(entry: ZooEntry) -> Path:
    """Where the model file of an entry is, once it has been imported."""
    return cache_folder() / f"{entry.name}.safetensors"


def is_cached(entry: ZooEntry) -> bool:
    """Whether the model file of an entry is there."""
    return cached_path(entry).is_file()


def _record(entry: ZooEntry) -> Path:
    """Where size and hash of its first download are kept."""
    return cache_folder() / "downloads" / f"{entry.name}.json"


def get(entry: ZooEntry, progress: Progress | None = None, *, keep: bool = False) -> Path:
    """The model file of an entry; where there is none yet, its checkpoint is downloaded and imported.

    A download that broke off goes on where it was. Size and hash of the first one that could be imported are recorded,
    and every later one must be the same. The checkpoint itself is removed after the import, unless ``keep``. Of two
    processes that ask at once, one waits for the other. A DownloadError says how to bring the file by hand.
    """
    out = cached_path(entry)
    if out.is_file():
        return out
    folder = out.parent / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / f"{entry.name}{entry.source.suffix}"
    with _alone(folder / f"{entry.name}.lock"):
        if out.is_file():
            return out
        _download(entry, raw, progress)
        _import(entry, raw, out)
        if not keep:
            raw.unlink()
    return out


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock at ``path``, and leave no file there; who waits for it meanwhile makes another."""
    with FileLock(path):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps what is open
                path.unlink()


def _download(entry: ZooEntry, raw: Path, progress: Progress | None) -> None:
    try:
        fetch(entry.source, raw, progress)
    except DownloadError as error:
        by_hand = f"cavis import-weights FILE --preset {entry.preset} --stage {entry.stage} --out {cached_path(entry)}"
        raise DownloadError(f"{error}; a file that you bring by other means is taken by `{by_hand}`") from error


def _import(entry: ZooEntry, raw: Path, out: Path) -> None:
    """Import a download if it is the known one; it is known once it could be imported."""
    from cavis.checkpoints.files import CheckpointError
    from cavis.checkpoints.importing import import_checkpoint

    record = _record(entry)
    found = fingerprint(raw)
    try:
        compare(found, record)
    except DownloadError:
        raw.unlink()
        raise
    try:
        import_checkpoint(raw, entry.preset, entry.stage, out)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (the download is kept; to fetch it again, remove it first)") from error
    remember(found, record)
