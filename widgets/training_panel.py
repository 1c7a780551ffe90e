"""Training to watch and to hold: train, pause, step and stop, while the notebook stays usable."""

import atexit
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import anywidget
import ipywidgets
import numpy as np
import traitlets

from widgets.loss_chart import History, chart, check_record
from widgets.markup import check_picture, image, in_one_sentence, problem

PACE = 0.2
"""Seconds between two updates of the view, at least."""


class Record(Protocol):
    """What the iterator yields after each step; further fields are ignored.

    A step that comes once more is work beside the training, such as measuring: its note is shown, the chart stays.
    Optional: ``note`` (what is being done, in words), ``clips`` (int, for the throughput),
    ``picture`` (uint8 [H W 3] or None, predictions on a fixed clip) and
    ``parts`` (a sequence of (name, learns, moved), moved being a number from 0).
    """

    step: int
    """Counts from 1."""
    steps: int
    loss: float
    terms: Mapping[str, float]
    learning_rate: float


class PanelView(anywidget.AnyWidget):
    """What the panel shows; a pointer over the chart reads its numbers."""

    _esm = Path(__file__).parent / "training_panel.js"
    chart = traitlets.Unicode().tag(sync=True)
    """SVG."""
    rest = traitlets.Unicode().tag(sync=True)
    """HTML below it."""
    pictures = traitlets.Unicode().tag(sync=True)
    """HTML below that: the largest part, and the one that seldom changes."""
    numbers = traitlets.Dict().tag(sync=True)
    """What the chart was drawn from: ``steps`` and one list for each term."""


class TrainingPanel(ipywidgets.VBox):
    """Train, pause, step and stop whatever an iterator does, and watch it.

    ``factory()`` starts a run, or goes on with one that was stopped, and returns an iterator of :class:`Record`; a step
    is what happens between two of them. It is iterated in a thread. When it is stopped it is closed, so a generator
    can leave a checkpoint in its ``finally``. ``reference`` is a picture, uint8 [H W 3], of what should be predicted;
    ``saved_in`` names where checkpoints go. What goes wrong is shown in one sentence.

    Example::

        panel = TrainingPanel(lesson.run, reference=truth(), saved_in="runs/lesson")
        panel.train()
    """

    state = traitlets.Enum(("ready", "running", "paused", "stopped", "finished", "failed"), "ready")

    def __init__(
        self, factory: Callable[[], Iterable[Any]], *, reference: np.ndarray | None = None, saved_in: str = ""
    ) -> None:
        if not callable(factory):
            raise ValueError(f"expected a function that starts the training, got {type(factory).__name__}")
        if reference is not None:
            check_picture(reference)
        self._factory = factory
        self._saved_in = saved_in
        self._reference = "" if reference is None else _row("what is there", reference)
        self._first = self._latest = ""
        self.history = History()
        self.error = ""
        """The sentence of the last failure."""
        self._last: Any = None
        self._beside = False
        self._rate = 0.0
        self._drawn = 0.0
        self._guard = threading.Lock()
        self._go, self._stop, self._once = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.view = PanelView()
        self.buttons = {
            "train": _button("Train", "play", "success", self.train),
            "pause": _button("Pause", "pause", "", self.pause),
            "step": _button("Step", "step-forward", "", self.step),
            "stop": _button("Stop", "stop", "danger", self.stop),
        }
        super().__init__([ipywidgets.HBox(list(self.buttons.values())), self.view])
        self.observe(lambda _: self._enable(), "state")
        self._enable()
        self._show()
        _PANELS.add(self)

    def train(self) -> None:
        """Start, or go on after a pause or a stop; while it is running already, nothing happens."""
        self._begin(once=False)

    def step(self) -> None:
        """Do one step, then pause."""
        self._begin(once=True)

    def pause(self) -> None:
        """Pause after the step that is being done."""
        self._go.clear()

    def stop(self) -> None:
        """End after the step that is being done; what is done is kept, and ``train`` goes on from there."""
        self._stop.set()
        self._go.set()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the run has ended (seconds; None: however long) and return the state; an interrupt stops it."""
        thread = self._thread
        if thread is None:
            return self.state
        try:
            thread.join(timeout)
        except KeyboardInterrupt:
            self.stop()
            thread.join()
            raise
        return self.state

    def _begin(self, *, once: bool) -> None:
        with self._guard:  # two clicks must not start two runs
            if self.state == "running" and self._thread is not None and self._thread.is_alive():
                if not self._go.is_set() and not self._stop.is_set():  # a pause that has not come yet
                    (self._once.set if once else self._once.clear)()
                    self._go.set()
                return
            (self._once.set if once else self._once.clear)()
            if self._thread is not None and self._thread.is_alive():
                if self.state == "paused":
                    self._go.set()
                    return
                self._thread.join()  # it has ended, and is only saying so
            self._stop.clear()
            self._go.set()
            self.error = ""
            self.state = "running"
            self._thread = threading.Thread(target=self._work, name="training", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """The thread: iterate, show, and obey between two steps."""
        ended = "finished"
        records: Any = None
        try:
            self._show("Getting ready …")
            records = iter(self._factory())
            before = time.monotonic()
            for record in records:
                self._take(record, time.monotonic() - before)
                if self._once.is_set():
                    self._go.clear()
                if not self._go.is_set() and not self._stop.is_set():
                    self.state = "paused"
                    self._show()
                    self._go.wait()
                    self.state = "running"
                if self._stop.is_set():
                    ended = "stopped"
                    break
                before = time.monotonic()
        except BaseException as error:
            ended = self._failed(error)
        try:
            if hasattr(records, "close"):
                records.close()
        except BaseException as error:
            ended = self._failed(error)
        if ended == "finished" and not self.history.steps and not self._saved_in:
            ended = self._failed(ValueError("expected at least one step of training, got none"))
        self.state = ended
        self._show()

    def _failed(self, error: BaseException) -> str:
        self.error = in_one_sentence(error)
        return "failed"

    def _take(self, record: Any, seconds: float) -> None:
        """Take a record in; show it unless that was done a moment ago."""
        check_record(record)
        self._beside = bool(self.history.steps) and record.step == self.history.steps[-1]
        if not self._beside:
            self.history.add(record)
        if not self._beside and _trained(record):
            self._rate = seconds if not self._rate else 0.8 * self._rate + 0.2 * seconds
        picture = getattr(record, "picture", None)
        if picture is not None:
            check_picture(picture)
            self._latest = _row(f"predicted after step {record.step}", picture)
            self._first = self._first or self._latest
        self._last = record
        if time.monotonic() - self._drawn > PACE or picture is not None:
            self._show()

    def _show(self, status: str = "") -> None:
        """Bring the view up to date, in one message."""
        self._drawn = time.monotonic()
        facts = [("", status or self._status()), *self._facts()]
        cells = "".join(f"<div><small>{escape(label)}</small><b>{escape(text)}</b></div>" for label, text in facts)
        trouble = problem(self.error) if self.error else ""
        numbers = self.history.thinned()
        with self.view.hold_sync():
            self.view.numbers = numbers
            self.view.chart = chart(numbers)
            self.view.rest = (
                f'<div class="tp">{_STYLE}<div class="tp-facts" role="status">{cells}</div>{trouble}'
                f"{_parts(getattr(self._last, 'parts', ()))}</div>"
            )
            first = self._first if self._first != self._latest else ""
            self.view.pictures = f'<div class="tp">{self._reference}{first}{self._latest}</div>'

    def _status(self) -> str:
        kept = f"; kept in {self._saved_in}" if self._saved_in else ""
        if self.state == "finished" and not self.history.steps:
            return f"Nothing left to do{kept}; delete that to begin anew"
        return {
            "ready": "Ready: press Train",
            "running": str(getattr(self._last, "note", "") or "Training …"),
            "paused": "Paused: Train goes on, Step does one",
            "stopped": f"Stopped{kept}",
            "finished": f"Finished{kept}",
            "failed": "Stopped by an error",
        }[self.state]

    def _facts(self) -> list[tuple[str, str]]:
        """The numbers of the last step, in words."""
        if self._last is None:
            return []
        last = self._last
        facts = [("step", f"{last.step} of {last.steps}"), ("learning rate", f"{last.learning_rate:.1e}")]
        if _trained(last):
            facts.insert(1, ("loss", f"{last.loss:.2f}"))
        if self._rate and not self._beside and _trained(last):
            clips = getattr(last, "clips", None)
            facts.append(("speed", f"{clips / self._rate:.1f} clips/s" if clips else f"{1 / self._rate:.1f} steps/s"))
            if self.state in ("running", "paused"):
                facts.append(("time left", in_minutes((last.steps - last.step) * self._rate)))
        return facts

    def _enable(self) -> None:
        """Only what can be done now can be pressed."""
        running, waiting = self.state == "running", self.state == "paused"
        self.buttons["train"].disabled = running
        self.buttons["step"].disabled = running
        self.buttons["pause"].disabled = not running
        self.buttons["stop"].disabled = not (running or waiting)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget where there is a kernel, what it showed last where there is none."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {
            **bundle,
            "text/html": self.view.chart + self.view.rest + self.view.pictures,
            "text/plain": "TrainingPanel",
        }


def _trained(record: Any) -> bool:
    """Whether a record comes from a step; one without terms and loss comes from work beside, such as measuring."""
    return bool(record.terms) or math.isfinite(record.loss)


def in_minutes(seconds: float) -> str:
    """A time as one says it: ``2 min 05 s``.

    >>> in_minutes(125.4)
    '2 min 05 s'
    """
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_PANELS: "weakref.WeakSet[TrainingPanel]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """When the kernel ends, every run ends like one that was stopped."""
    for panel in list(_PANELS):
        panel.stop()
        panel.wait(60)


def _button(words: str, icon: str, style: str, action: Callable[[], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(
        description=words, icon=icon, button_style=style, layout=ipywidgets.Layout(width="100px")
    )
    button.on_click(lambda _: action())
    return button


def _row(words: str, picture: np.ndarray) -> str:
    return f'<figure class="tp-row"><figcaption>{escape(words)}</figcaption>{image(picture, words)}</figure>'


def _parts(parts: Sequence[tuple[str, bool, float]]) -> str:
    """Which parts of the model learn, and how far they have moved."""
    if not parts:
        return ""
    most = max((float(moved) for _, _, moved in parts), default=0) or 1.0
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{'✎ learns' if learns else '❄ frozen'}</td>"
        f'<td class="tp-bar"><div style="width:{100 * float(moved) / most:.0f}%"></div></td>'
        f"<td>{'has not moved' if moved == 0 else f'moved by {100 * float(moved):.2f} %'}</td></tr>"
        for name, learns, moved in parts
    )
    return f'<table class="tp-parts">{rows}</table>'


_STYLE = """<style>
.tp{font:13px/1.4 system-ui,sans-serif;max-width:1000px}
.tp-facts{display:flex;flex-wrap:wrap;gap:4px 24px;margin:6px 0}.tp-facts small{display:block;opacity:.7}
.tp-facts b{font-variant-numeric:tabular-nums}.tp-facts div:first-child{min-width:14em}
.tp-row{margin:8px 0}.tp-row figcaption{font-weight:600}.tp-row img{width:100%;max-width:960px;margin:0;display:block}
.tp-parts{border-collapse:collapse;margin:6px 0;font-size:12px}.tp-parts td{padding:1px 12px 1px 0;text-align:left}
.tp-bar{width:180px}.tp-bar div{height:10px;background:#0072B2}
</style>"""
