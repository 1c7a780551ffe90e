"""What happens when the visitor does something; each function answers with updates of the page's parts."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from cavis.demo import viewer, words
from cavis.demo.examples import Shelf
from cavis.demo.exports import write_files
from cavis.demo.jobs import GoneError, Job, JobStore
from cavis.demo.limits import Part, describe, duration_words, refusal, suggested, whole
from cavis.demo.models import ModelError
from cavis.demo.tracking import Tracker, Update
from cavis.demo.viewer import View
from cavis.inference.predictor import Cancelled
from cavis.inference.spill import SpillError
from cavis.video import VideoError, probe
from cavis.visualization.figures import timeline

log = logging.getLogger(__name__)

_STOPPED = words.note("Stopped. Nothing of the unfinished run was kept.")
Updates = dict[Any, Any]
"""New values and properties by part of the page."""


class Parts(NamedTuple):
    """The parts of the page that change."""

    job: gr.State
    model: gr.Dropdown
    model_note: gr.HTML
    download: gr.Button
    stop_download: gr.Button
    download_note: gr.HTML
    about: gr.HTML
    upload: gr.Video
    choose_note: gr.HTML
    part_box: gr.Column
    start: gr.Slider
    end: gr.Slider
    stride: gr.Slider
    part_note: gr.HTML
    track: gr.Button
    cancel: gr.Button
    progress: gr.HTML
    preview: gr.HTML
    run_note: gr.HTML
    result_box: gr.Column
    found: gr.HTML
    video: gr.Video
    table: gr.HTML
    timeline: gr.Plot
    frame: gr.Slider
    picture: gr.Image
    min_score: gr.Slider
    kinds: gr.CheckboxGroup
    drawn: gr.CheckboxGroup
    only: gr.CheckboxGroup
    redraw: gr.Button
    get_video: gr.DownloadButton
    get_results: gr.DownloadButton
    get_tracks: gr.DownloadButton


class Handlers:
    """The visitor's actions on ``parts``."""

    def __init__(self, tracker: Tracker, store: JobStore, shelf: Shelf, parts: Parts) -> None:
        self._tracker, self._store, self._shelf, self._parts = tracker, store, shelf, parts
        self._limits = tracker.limits

    # ------------------------------------------------------------------------------------------ choosing a clip

    def choose_upload(self, file: str | None, model: str, request: gr.Request) -> Updates:
        """Look at what was uploaded, to be tracked with ``model``."""
        parts = self._parts
        if file is None:
            return self.clear(request)
        job = self._store.open(request.session_hash)
        try:
            job.take(Path(file))
            job.info, job.model = probe(job.upload, self._limits.video, cancel=job.stop), model
        except Exception as error:
            self._store.drop(job.key)
            Path(file).unlink(missing_ok=True)  # gradio's own copy
            return self._nothing_chosen(sentence(error), "error") | {parts.upload: gr.update(value=None)}
        return self._chosen(job) | {parts.result_box: gr.update(visible=False)}

    def choose_example(self, index: int, model: str, request: gr.Request) -> Updates:
        """Show a shipped clip with the result that comes with it."""
        parts = self._parts
        job = self._store.open(request.session_hash)
        self._shelf.put(index, job)
        job.model = model
        view = View()
        shown = self._chosen(job) | self._result(job, view)
        made_by = self._shelf.model
        same = (model or self._tracker.models.first.name) == made_by
        how = "Press Track" if same else f"Choose “{made_by}” at the top of the page and press Track"
        notes = (f"Computed beforehand with the model “{made_by}”, which knows drawn clips. {how} to see it happen.",)
        return shown | {
            parts.upload: gr.update(value=str(job.upload)),
            parts.found: words.found(viewer.headline(job, view), notes),
            parts.drawn: list(view.drawn),
            parts.min_score: view.min_score,
        }

    def clear(self, request: gr.Request) -> Updates:
        """The visitor has taken the clip away."""
        if request.session_hash:
            self._store.drop_session(request.session_hash)
        return self._nothing_chosen("", "info")

    def forget(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        if request.session_hash:
            self._store.drop_session(request.session_hash)

    def _nothing_chosen(self, text: str, kind: str) -> Updates:
        parts = self._parts
        hidden = gr.update(visible=False)
        return {
            parts.job: None,
            parts.choose_note: words.note(text, kind),
            parts.part_box: hidden,
            parts.result_box: hidden,
        } | self._idle("")

    def choose_model(self, key: str | None, model: str, part: tuple[float, float, float]) -> Updates:
        """Another model for the clip there is; ``part`` is start, end and stride as chosen."""
        try:
            job = self._store.get(key)
        except GoneError:  # no clip yet: there is nothing to say about it
            return {}
        job.model = model
        return {self._parts.choose_note: self._described(job)} | self._judge_unless_running(job, self._part(*part))

    def _described(self, job: Job) -> str:
        """What the clip is, and a warning where the model was not made for it."""
        assert job.info is not None
        text = " ".join([describe(job.info) + ".", *job.info.notes])
        if job.example:
            return words.note(f"{job.example}: {text}")
        with suppress(ModelError):
            offer = self._tracker.models.offer(job.model)
            if not offer.for_real_clips:
                return words.note(f"{text} Expect little of “{offer.name}” on real clips.", "warning")
        return words.note(text)

    def _chosen(self, job: Job) -> Updates:
        parts, info = self._parts, job.info
        assert info is not None
        part, end = suggested(info, self._limits), whole(info).end
        step = 0.01 if info.duration < 60 else 0.1
        most = max(2, min(60, info.frames // 2))
        return (
            {
                parts.job: job.key,
                parts.choose_note: self._described(job),
                parts.part_box: gr.update(visible=True),
                parts.start: gr.update(value=part.start, maximum=end, step=step),
                parts.end: gr.update(value=part.end, maximum=end, step=step),
                parts.stride: gr.update(value=part.stride, maximum=max(most, part.stride)),
            }
            | self._idle("")
            | self._judge(job, part)
        )

    # ------------------------------------------------------------------------------------------ choosing a part

    def judge_part(self, key: str | None, start: float, end: float, stride: float) -> Updates:
        """Tell what the chosen part amounts to."""
        try:
            job = self._store.get(key)
        except GoneError as error:
            return {self._parts.part_note: words.note(str(error), "error")}
        return self._judge_unless_running(job, self._part(start, end, stride))

    def _judge_unless_running(self, job: Job, part: Part) -> Updates:
        judged = self._judge(job, part)
        if job.running or job.waiting:
            judged.pop(self._parts.track)
        return judged

    def _judge(self, job: Job, part: Part) -> Updates:
        parts = self._parts
        assert job.info is not None
        frames = part.frames(job.info)
        why_not = refusal(part, job.info, self._limits) or self._tracker.refusal(job)
        if why_not:
            return {
                parts.part_note: words.note(why_not, "warning"),
                parts.track: gr.update(value="Track", interactive=False),
            }
        seconds = self._tracker.estimate(job, frames)
        text = f"→ {frames} {'frame' if frames == 1 else 'frames'}, {duration_words(seconds)} on this machine"
        note = words.hint(text)
        if seconds > self._limits.seconds:
            most = duration_words(self._limits.seconds).removeprefix("about ")
            note = words.note(f"{text}; a run may take {most}: choose a shorter part, or fewer frames.", "warning")
        return {parts.part_note: note, parts.track: gr.update(value="Track", interactive=True)}

    @staticmethod
    def _part(start: float, end: float, stride: float) -> Part:
        return Part(max(0.0, float(start)), float(end), max(1, int(stride)))

    # ------------------------------------------------------------------------------------------ tracking

    def wait(self, request: gr.Request) -> Updates:
        """The visitor has pressed Track; somebody else may be first, and the clip is kept until then."""
        self._store.expect(request.session_hash)
        return self._begun()

    def _begun(self) -> Updates:
        parts = self._parts
        return {
            parts.track: gr.update(value="Tracking …", interactive=False),
            parts.cancel: gr.update(visible=True),
            parts.progress: words.waiting(),
            parts.preview: "",
            parts.run_note: "",
            parts.result_box: gr.update(visible=False),
        }

    def track(
        self, key: str | None, start: float, end: float, stride: float, min_score: float, drawn: list[str]
    ) -> Iterator[Updates]:
        """Track the chosen part; says how far it is until it has a result."""
        view = View(float(min_score), tuple(drawn))
        try:
            job = self._store.get(key)
            job.waiting = False
            assert job.info is not None
            part = self._part(start, end, stride)
            if why_not := refusal(part, job.info, self._limits):
                raise VideoError(why_not)
            yield self._begun()
            for update in self._tracker.track(job, part, view):
                yield self._progress(update)
            yield self._idle("") | self._result(job, view)
        except Exception as error:
            stopped = isinstance(error, Cancelled)
            yield self._idle(_STOPPED if stopped else words.note(sentence(error), "error"))

    def cancel(self, key: str | None) -> Updates:
        """Stop the work on a job."""
        with suppress(GoneError):
            self._store.get(key).cancel()
        return self._idle(_STOPPED)

    def redraw(
        self, key: str | None, min_score: float, kinds: list[str], drawn: list[str], only: list[int]
    ) -> Iterator[Updates]:
        """Draw the video again in the chosen way; the network does not run."""
        parts = self._parts
        view = self._view(min_score, kinds, drawn, only)
        try:
            job = self._store.get(key)
            view.of(job)
            yield {parts.redraw: gr.update(value="Drawing …", interactive=False)}
            for update in self._tracker.redraw(job, view):
                yield {parts.redraw: f"Drawing … {round(100 * update.fraction)} %"}
            yield {parts.video: str(job.video), parts.get_video: str(job.video)} | self._redraw_done()
        except Exception as error:
            stopped = isinstance(error, Cancelled)  # by Track: its run has the page now
            yield ({} if stopped else {parts.run_note: words.note(sentence(error), "error")}) | self._redraw_done()

    def _redraw_done(self) -> Updates:
        return {self._parts.redraw: gr.update(value="Draw the video like this", interactive=True, variant="secondary")}

    def _progress(self, update: Update) -> Updates:
        parts = self._parts
        shown = {parts.progress: words.progress(update)}
        return shown | ({parts.preview: picture} if (picture := words.preview(update)) else {})

    def _idle(self, note: str) -> Updates:
        """Nothing is running."""
        parts = self._parts
        return {
            parts.track: gr.update(value="Track", interactive=True),
            parts.cancel: gr.update(visible=False),
            parts.progress: "",
            parts.preview: "",
            parts.run_note: note,
        }

    # ------------------------------------------------------------------------------------------ looking at it

    def _result(self, job: Job, view: View) -> Updates:
        """Everything about a new result."""
        parts = self._parts
        result = job.result
        assert result is not None
        kinds = viewer.kinds_found(result)
        return {
            parts.result_box: gr.update(visible=True),
            parts.kinds: gr.update(choices=kinds, value=kinds, visible=len(kinds) > 1),
            parts.video: str(job.video),
            parts.get_video: str(job.video),
            **self._redraw_done(),
            parts.frame: gr.update(value=0, maximum=max(1, len(result) - 1), interactive=len(result) > 1),
            **self._filtered(job, view),
            parts.picture: viewer.picture(job, view, 0),
        }

    def _filtered(self, job: Job, view: View) -> Updates:
        """What depends on which tracks are shown."""
        parts = self._parts
        result = view.of(job)
        files = write_files(job, view)
        return {
            parts.found: words.found(viewer.headline(job, view), result.notes),
            parts.table: viewer.table(job, view),
            parts.timeline: timeline(result),
            parts.only: gr.update(choices=viewer.choices(result), value=list(view.only)),
            parts.get_results: str(files.results),
            parts.get_tracks: str(files.tracks),
        }

    def show(self, key: str | None, t: float, *looks: Any) -> Updates:
        """One frame with the tracks drawn on it; ``looks`` as in :meth:`_view`."""
        view = self._view(*looks)
        return self._shown(lambda job: {self._parts.picture: viewer.picture(job, view, int(t))}, key)

    def restyle(self, key: str | None, t: float, *looks: Any) -> Updates:
        """The same, after another choice of what to draw: the video does not show it yet."""
        return self.show(key, t, *looks) | self._outdated()

    def _outdated(self) -> Updates:
        return {self._parts.redraw: gr.update(variant="primary")}

    def filter(
        self, key: str | None, t: float, min_score: float, kinds: list[str], drawn: list[str], only: list[int]
    ) -> Updates:
        """Another score threshold, or other kinds: the table, the timeline, the frame and the files follow at once."""

        def answer(job: Job) -> Updates:
            view = self._view(min_score, kinds, drawn, [])
            ids = {track.id for track in view.of(job).tracks}
            view = self._view(min_score, kinds, drawn, [track for track in only if track in ids])
            shown = {self._parts.picture: viewer.picture(job, view, int(t))}
            return self._filtered(job, view) | shown | self._outdated()

        return self._shown(answer, key)

    def point(
        self,
        key: str | None,
        t: float,
        min_score: float,
        kinds: list[str],
        drawn: list[str],
        only: list[int],
        event: gr.SelectData,
    ) -> Updates:
        """A click into the frame brings out the track under it, or lets go of it."""

        def answer(job: Job) -> Updates:
            x, y = event.index
            track = viewer.track_at(job, self._view(min_score, kinds, drawn, []), int(t), int(x), int(y))
            chosen = [] if track is None else sorted({*only} ^ {track})
            view = self._view(min_score, kinds, drawn, chosen)
            shown = {self._parts.only: chosen, self._parts.picture: viewer.picture(job, view, int(t))}
            return shown | self._outdated()

        return self._shown(answer, key)

    def mark(self, key: str | None, t: float, min_score: float, kinds: list[str]) -> Updates:
        """The timeline with a line at the frame that is shown."""

        def answer(job: Job) -> Updates:
            result = View(float(min_score), kinds=tuple(kinds)).of(job)
            index = min(max(0, int(t)), len(result) - 1)
            return {self._parts.timeline: timeline(result, float(result.timestamps[index]))}

        return self._shown(answer, key)

    def _shown(self, answer: Any, key: str | None) -> Updates:
        try:
            return answer(self._store.get(key))
        except Exception as error:
            return {self._parts.run_note: words.note(sentence(error), "error")}

    @staticmethod
    def _view(min_score: float, kinds: list[str], drawn: list[str], only: list[int]) -> View:
        return View(float(min_score), tuple(drawn), tuple(int(track) for track in only), tuple(kinds))


def sentence(error: Exception) -> str:
    """What an error means for the visitor; what is not meant for them goes to the log only."""
    if isinstance(error, VideoError | GoneError | SpillError | ModelError):
        return str(error)[:1].upper() + str(error)[1:]
    log.error("a visitor's request failed", exc_info=error)
    return "Something went wrong on our side. Please try again; if it happens again, try another clip."
