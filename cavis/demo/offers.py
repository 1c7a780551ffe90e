"""The models a visitor can choose from: those that are here, and published ones that can be fetched."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cavis.checkpoints.files import ModelFile, read_model_file
from cavis.checkpoints.hub import ReadyModel, find_model
from cavis.checkpoints.zoo import ZOO, ZooEntry, cached_path, is_cached
from cavis.demo.pace import first_guess
from cavis.presets import get_preset

WEIGHTS = {"r50": 200, "swint": 190, "swins": 275, "swinb": 430, "swinl": 900, "vitl": 1400}
"""Megabytes of a published model's weights, about, by backbone."""
SUBJECTS = {
    "coco": "everyday things",
    "ytvis19": "people, animals, vehicles",
    "ytvis21": "people, animals, vehicles",
    "ovis": "people, animals, vehicles in crowds",
    "vipseg": "everything in sight",
}
"""What the data sets show, for those who do not know them."""
SLOW = 2.0
"""Seconds a frame from which on a visitor is warned."""
_BACKBONE_ONLY = "dinov2_vitl"


@dataclass(frozen=True)
class Offer:
    """A model as a visitor is told about it."""

    name: str
    about: str
    """What it recognises, in a few words."""
    categories: tuple[str, ...]
    world: str
    """One sentence: what it has seen. Empty if that is not known."""
    training: str
    megabytes: float
    """Of the weights in memory, about."""
    seconds: float
    """A guess what one frame takes without a GPU."""
    here: bool = True
    """Whether it can be run at once."""
    entry: ZooEntry | None = None
    """Where it was published; None for models of our own."""

    @property
    def label(self) -> str:
        """A line of the list."""
        state = "" if self.here else f" · not here yet ({size_words(self.megabytes)})"
        return f"{self.name} · {self.about}{state}"

    @property
    def slow(self) -> bool:
        """Whether a frame takes long without a GPU."""
        return self.seconds >= SLOW


def loaded_offer(ready: ReadyModel) -> Offer:
    """The offer of a model that is loaded."""
    about, megabytes = ready.about, weight_of(ready.model.state_dict())
    seconds = first_guess(megabytes, ready.inference)
    return Offer(
        about.name, _own_words(about), about.config.categories, ready.world, about.training, megabytes, seconds
    )


def bundled_offer(name: str) -> Offer:
    """The offer of a bundled name."""
    about, state = read_model_file(find_model(name))
    preset, megabytes = get_preset(about.preset), weight_of(state)
    seconds = first_guess(megabytes, preset.inference)
    return Offer(name, _own_words(about), about.config.categories, preset.world, about.training, megabytes, seconds)


def published_offer(entry: ZooEntry) -> Offer:
    """The offer of a published checkpoint; its file is not opened."""
    preset, path = get_preset(entry.preset), cached_path(entry)
    here = is_cached(entry)
    megabytes = path.stat().st_size / 1e6 if here else float(WEIGHTS.get(entry.backbone, 200))
    classes = preset.model.categories
    about = _kinds(len(classes), SUBJECTS.get(entry.data, ""))
    seconds = first_guess(megabytes, preset.inference)
    return Offer(entry.name, about, classes, preset.world, "", megabytes, seconds, here, entry)


def published_offers(downloads: bool) -> list[Offer]:
    """The published models that are here, and with ``downloads`` those worth fetching: for everyday things first."""
    runnable = [entry for entry in ZOO.values() if entry.name != _BACKBONE_ONLY]
    runnable.sort(key=lambda entry: entry.data != "coco")
    shown = [entry for entry in runnable if is_cached(entry) or (downloads and _worth_fetching(entry))]
    return [published_offer(entry) for entry in shown]


def size_words(megabytes: float) -> str:
    """``about 200 MB``, ``about 1.4 GB``."""
    if megabytes < 1000:
        return f"about {10 * max(1, round(megabytes / 10))} MB"
    return f"about {megabytes / 1000:.1f} GB"


def _worth_fetching(entry: ZooEntry) -> bool:
    """Released models with a tracker, and Mask2Former for everyday things; what training starts from is left out."""
    return entry.stage != "segmenter" or entry.name.startswith("mask2former_")


def weight_of(state: Mapping[str, Tensor]) -> float:
    """Megabytes of a model's entries as fp32."""
    return 4 * sum(value.numel() for value in state.values()) / 1e6


def _own_words(about: ModelFile) -> str:
    return _kinds(len(about.config.categories), "the twins' world" if about.preset == "tiny" else "")


def _kinds(count: int, words: str) -> str:
    return f"{words}, {count} kinds" if words else f"{count} kinds of things"
