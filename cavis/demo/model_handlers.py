"""What happens when the visitor chooses a model, or fetches one."""

from collections.abc import Iterator

import gradio as gr

from cavis.demo import words
from cavis.demo.handlers import Handlers, Parts, Updates, sentence
from cavis.demo.models import Fetching, ModelError, Models
from cavis.demo.offers import Offer
from cavis.inference.predictor import Cancelled


class ModelHandlers:
    """The visitor's actions on the list of models."""

    def __init__(self, models: Models, handlers: Handlers, parts: Parts) -> None:
        self._models, self._handlers, self._parts = models, handlers, parts

    def refresh(self) -> Updates:
        """The list as it is now: somebody else may have fetched a model."""
        return {self._parts.model: gr.update(choices=choices(self._models))}

    def choose(self, model: str, key: str | None, start: float, end: float, stride: float) -> Updates:
        """Tell about the model that was chosen; the clip is tracked with it from now on."""
        return self.settle(model, key, start, end, stride) | {self._parts.download_note: ""}

    def settle(self, model: str, key: str | None, start: float, end: float, stride: float) -> Updates:
        """The same after a download, whose last words stay."""
        try:
            offer = self._models.offer(model)
        except ModelError as error:
            return {self._parts.model_note: words.note(str(error), "error")}
        return self._told(offer) | self._handlers.choose_model(key, model, (start, end, stride))

    def fetch(self, model: str) -> Iterator[Updates]:
        """Download a model; when it is here, it is the chosen one."""
        parts = self._parts
        yield {
            parts.model: gr.update(interactive=False),
            parts.download: gr.update(visible=False),
            parts.stop_download: gr.update(visible=True),
            parts.download_note: words.download(Fetching(0, None)),
        }
        note = ""
        try:
            for state in self._models.fetch(model):
                yield {parts.download_note: words.download(state)}
        except Cancelled:
            note = words.note("Stopped. You can download it another time.")
        except Exception as error:
            note = words.note(sentence(error), "error")
        chosen = gr.update(choices=choices(self._models), value=model, interactive=True)
        yield {parts.model: chosen, parts.stop_download: gr.update(visible=False), parts.download_note: note}

    def stop(self, model: str) -> None:
        """Stop the download."""
        self._models.stop(model)

    def _told(self, offer: Offer) -> Updates:
        parts, device = self._parts, self._models.device
        return {
            parts.model_note: words.model(offer, device),
            parts.about: words.about(offer, device),
            parts.download: gr.update(visible=not offer.here),
        }


def choices(models: Models) -> list[tuple[str, str]]:
    """The list: lines and names."""
    return [(offer.label, offer.name) for offer in models.offers()]
