"""The models a visitor can choose from: those that are here, and published ones that can be fetched."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cavis.categories import LITE, TWINS
from cavis.checkpoints.files import ModelFile, read_model_file
from cavis.checkpoints.hub import ReadyModel, find_model
from cavis.checkpoints.zoo import ZOO, ZooEntry, cached_path, is_cached
from cavis.config import InferenceConfig, Stage
from cavis.demo.pace import first_guess
from cavis.presets import get_preset

SUBJECTS = {
    "coco": "everyday things",
    "ytvis19": "people, animals, vehicles",
    "ytvis21": "people, animals, vehicles",
    "ovis": "people, animals, vehicles in crowds",
    "vipseg": "everything in sight",
}
"""What the data sets show, for those who do not know them."""
OWN_SUBJECTS = {TWINS: "drawn clips with twins in them", LITE: "people, cats, cars, bicycles, motorcycles, objects"}
"""What the models of our own presets know, by their categories."""
SLOW = 2.0
"""Seconds a frame from which on a visitor is warned."""
_BACKBONE_ONLY = "dinov2_vitl"
_WORKS: dict[Stage, str] = {"segmenter": "frames", "tracker": "online", "refiner": "offline"}
"""What the stages are called in the list, where a phone shows little; the words are explained beside it."""


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
    stage: Stage
    context: bool
    """Whether it looks at what surrounds a thing."""
    stuff: int
    """How many of the categories, the last ones, are not counted (sky, road, ...)."""
    for_real_clips: bool = True
    """Whether it has seen anything but drawn ones."""
    here: bool = True
    """Whether it can be run at once."""
    entry: ZooEntry | None = None
    """Where it was published; None for models of our own."""

    @property
    def label(self) -> str:
        """A line of the list; what tells released models apart comes first: a phone shows the beginning only."""
        state = "" if self.here else f" · not here yet ({size_words(self.megabytes)})"
        return " · ".join((*self._title(), f"{self.about}{state}"))

    def _title(self) -> tuple[str, ...]:
        """The name; what tells those apart that differ in their stage alone; of released models, how good they are."""
        if not self.name.endswith(f"_{self.stage}"):
            return (self.name,)
        if self.entry is None:
            return (self.name, _WORKS[self.stage])
        paper = self.entry.paper
        score = (f"{name} {value:.3f}" for name, value in (("AP", paper.ap), ("VPQ", paper.vpq)) if value is not None)
        return (self.name.removesuffix(f"_{self.stage}"), _WORKS[self.stage], *score)

    @property
    def slow(self) -> bool:
        """Whether a frame takes long without a GPU."""
        return self.seconds >= SLOW


def loaded_offer(ready: ReadyModel) -> Offer:
    """The offer of a model that is loaded."""
    return _own_offer(ready.about.name, ready.about, ready.world, weight_of(ready.model.state_dict()), ready.inference)


def bundled_offer(name: str) -> Offer:
    """The offer of a bundled name."""
    about, state = read_model_file(find_model(name))
    preset = get_preset(about.preset)
    return _own_offer(name, about, preset.world, weight_of(state), preset.inference)


def _own_offer(name: str, about: ModelFile, world: str, megabytes: float, inference: InferenceConfig) -> Offer:
    config = about.config
    return Offer(
        name=name,
        about=_kinds(len(config.categories), OWN_SUBJECTS.get(config.categories, "")),
        categories=config.categories,
        world=world,
        training=about.training,
        megabytes=megabytes,
        seconds=first_guess(megabytes, inference),
        stage=about.stage,
        context=config.reading.context != "none",
        stuff=config.stuff,
        for_real_clips=config.categories != TWINS,
    )


def published_offer(entry: ZooEntry) -> Offer:
    """The offer of a published checkpoint; its file is not opened."""
    preset, path = get_preset(entry.preset), cached_path(entry)
    here, model = is_cached(entry), preset.model
    megabytes = path.stat().st_size / 1e6 if here else float(entry.megabytes)
    return Offer(
        name=entry.name,
        about=_kinds(len(model.categories), SUBJECTS.get(entry.data, "")),
        categories=model.categories,
        world=preset.world,
        training="",
        megabytes=megabytes,
        seconds=first_guess(megabytes, preset.inference),
        stage=entry.stage,
        context=model.reading.context != "none",
        stuff=model.stuff,
        here=here,
        entry=entry,
    )


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


def _kinds(count: int, words: str) -> str:
    return f"{words}, {count} kinds" if words else f"{count} kinds of things"
