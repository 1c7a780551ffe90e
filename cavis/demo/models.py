"""The models behind the page: loaded when they are asked for, kept while they are used, fetched with one click."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cavis.checkpoints import zoo
from cavis.checkpoints.download import DownloadError
from cavis.checkpoints.files import CheckpointError
from cavis.checkpoints.hub import ReadyModel, bundled_models, load_model
from cavis.demo.offers import Offer, bundled_offer, loaded_offer, published_offers, weight_of
from cavis.demo.pace import Pace, first_guess
from cavis.inference.choose import predictor_for
from cavis.inference.predictor import Cancelled, Predictor

log = logging.getLogger(__name__)

_ONE_BY_ONE = 1.0
"""Seconds a frame from which on frames pass the network one at a time: progress and cancel come sooner."""

NOT_HERE = "The model “{}” is not here yet: download it first, or choose another one."


NEXT = "Try again later, or choose a model that is here already."
"""What a visitor can do when a download failed."""


class ModelError(LookupError):
    """A model that cannot be had; the message is a sentence for the visitor."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run."""

    name: str
    ready: ReadyModel
    predictor: Predictor
    pace: Pace


@dataclass(frozen=True)
class Fetching:
    """How far a download is."""

    done: int
    """Bytes."""
    total: int | None
    """None while that is not known."""

    @property
    def importing(self) -> bool:
        """Whether all of it came, and it is being made a model of."""
        return self.total is not None and self.done >= self.total > 0


class Models:
    """The first model, which stays, and of all others the one that was used last.

    ``downloads``: whether visitors may fetch published models. The empty name means the first model everywhere.
    """

    def __init__(
        self,
        first: ReadyModel,
        *,
        downloads: bool = False,
        load: Callable[[str, str], ReadyModel] = load_model,
    ) -> None:
        self.downloads = downloads
        self._load = load
        self._paces: dict[str, Pace] = {}
        self.first = self._loaded(first.about.name, first)
        self._other: Loaded | None = None
        self._lock, self._fetch_lock = threading.Lock(), threading.Lock()
        self._fetches: dict[str, _Fetch] = {}
        self._own = [loaded_offer(first)]
        bundled = (bundled_offer(name) for name in bundled_models() if name != first.about.name)
        self._own += [offer for offer in bundled if offer.stage != "segmenter"]  # what does not track is to study

    @property
    def device(self) -> str:
        """The kind of device they run on: cpu, cuda, mps."""
        return self.first.ready.device.type

    def offers(self) -> list[Offer]:
        """All models to choose from, the first one first."""
        taken = {offer.name for offer in self._own}
        return self._own + [offer for offer in published_offers(self.downloads) if offer.name not in taken]

    def offer(self, name: str = "") -> Offer:
        """One of them; a ModelError if there is none of that name."""
        for offer in self.offers():
            if offer.name == (name or self.first.name):
                return offer
        raise ModelError("There is no such model; please choose one from the list.")

    def pace(self, name: str = "") -> Pace:
        """How fast a model is, as far as it is known."""
        name = name or self.first.name
        if name in self._paces:
            return self._paces[name]
        return Pace(self.offer(name).seconds if self.device == "cpu" else None)

    def get(self, name: str = "") -> Loaded:
        """A model, loaded if it is not yet; a ModelError if it is not here."""
        if name in ("", self.first.name):
            return self.first
        if not self.offer(name).here:
            raise ModelError(NOT_HERE.format(name))
        with self._lock:
            if self._other is None or self._other.name != name:
                self._other = None  # two large models do not fit into every memory
                self._other = self._fresh(name)
            return self._other

    def fetch(self, name: str, interval: float = 0.3) -> Iterator[Fetching]:
        """Download a published model, and tell every ``interval`` seconds how far it is.

        Whoever asks for it meanwhile watches the same download; nobody watching does not end it. A ModelError if it
        failed, or if it is not allowed here; Cancelled if somebody stopped it.
        """
        offer = self.offer(name)
        if offer.here:
            return
        if not self.downloads or offer.entry is None:
            raise ModelError("On this page models cannot be downloaded.")
        with self._fetch_lock:
            fetch = self._fetches.get(name)
            if fetch is None or fetch.ended.is_set():
                fetch = self._fetches[name] = _Fetch(offer.entry)
        while not fetch.ended.wait(interval):
            yield fetch.state
        fetch.raise_failure()

    def stop(self, name: str) -> None:
        """Stop the download of a model, if there is one."""
        with self._fetch_lock:
            if name in self._fetches:
                self._fetches[name].stop.set()

    def _fresh(self, name: str) -> Loaded:
        try:
            return self._loaded(name, self._load(name, self.device))
        except (CheckpointError, OSError, RuntimeError) as error:
            log.error("the model %s cannot be loaded", name, exc_info=error)
            raise ModelError(f"The model “{name}” cannot be loaded; please choose another one.") from error

    def _loaded(self, name: str, ready: ReadyModel) -> Loaded:
        seconds = first_guess(weight_of(ready.model.state_dict()), ready.inference, ready.device.type)
        pace = self._paces.setdefault(name, Pace(seconds))
        predictor = predictor_for(ready, window=1 if seconds >= _ONE_BY_ONE else None)
        return Loaded(name, ready, predictor, pace)


class _Fetch:
    """One download, in a thread of its own."""

    def __init__(self, entry: zoo.ZooEntry) -> None:
        self.state = Fetching(0, None)
        self.stop, self.ended = threading.Event(), threading.Event()
        self._entry = entry
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="cavis-demo-download", daemon=True).start()

    def raise_failure(self) -> None:
        """Nothing happens if it came."""
        error = self._error
        if error is None:
            return
        if self.stop.is_set():
            raise Cancelled
        if isinstance(error, DownloadError):  # what it adds to its cause is for those who have a command line
            text = str(error.__cause__ if isinstance(error.__cause__, DownloadError) else error)
            raise ModelError(f"{text[:1].upper()}{text[1:]}. {NEXT}") from error
        log.error("the model %s cannot be fetched", self._entry.name, exc_info=error)
        what = "is not the model that was expected" if isinstance(error, CheckpointError) else "could not be kept"
        raise ModelError(f"The download of “{self._entry.name}” {what}.") from error

    def _run(self) -> None:
        try:
            zoo.get(self._entry, self._tell)
        except Exception as error:  # raised again where somebody listens
            self._error = error
            if isinstance(error, CheckpointError):  # the wrong file came: the next try is to fetch another one
                name = f"{self._entry.name}{self._entry.source.suffix}"
                (zoo.cached_path(self._entry).parent / "downloads" / name).unlink(missing_ok=True)
        finally:
            self.ended.set()

    def _tell(self, done: int, total: int | None) -> None:
        if self.stop.is_set():
            raise Cancelled
        self.state = Fetching(done, total)
