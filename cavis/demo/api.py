"""The page's work for programs: ``gradio_client``'s ``Client(address).predict(..., api_name="/track")``."""

from pathlib import Path
from typing import Any

import gradio as gr

from cavis.demo.exports import write_files
from cavis.demo.handlers import sentence
from cavis.demo.jobs import JobStore
from cavis.demo.limits import Part, refusal, whole
from cavis.demo.tracking import Tracker
from cavis.demo.viewer import DEFAULT_SCORE, View
from cavis.records import VideoResult
from cavis.video import VideoError, probe


class Api:
    """Tracks a file in one call."""

    def __init__(self, tracker: Tracker, store: JobStore) -> None:
        self._tracker, self._store = tracker, store

    def track(
        self,
        video: str | None,
        start: float = 0,
        end: float | None = None,
        stride: float = 1,
        min_score: float = 0.3,
        model: str = "",
    ) -> tuple[str, str, str, dict[str, Any]]:
        """Track the part from ``start`` to ``end`` (seconds; none: to the end), every ``stride``-th frame.

        ``model`` is one that the page has already; empty: the one it begins with.

        Answers with the video with the tracks drawn on it, the masks (YouTube-VIS json), the table (csv), and a
        summary. The files are kept for an hour.
        """
        job = self._store.open(None)
        try:
            if video is None:
                raise VideoError("Expected a video, got none.")
            job.take(Path(video))
            job.model = model or ""
            job.info = probe(job.upload, self._tracker.limits.video, cancel=job.stop)
            part = Part(start or 0.0, end or whole(job.info).end, int(stride or 1))
            if why_not := refusal(part, job.info, self._tracker.limits) or self._tracker.refusal(job):
                raise VideoError(why_not)
            view = View(min_score)
            for _ in self._tracker.track(job, part, view):
                pass
            files = write_files(job, view)
            return str(job.video), str(files.results), str(files.tracks), summary(view.of(job))
        except Exception as error:
            self._store.drop(job.key)
            raise gr.Error(sentence(error), print_exception=False) from None


def summary(result: VideoResult) -> dict[str, Any]:
    """What was found, in short."""
    return {
        "model": result.model,
        "frames": len(result),
        "height": result.height,
        "width": result.width,
        "notes": list(result.notes),
        "tracks": [
            {
                "id": track.id,
                "category": result.category(track),
                "score": round(track.score, 4),
                "visible_frames": int(track.visible.sum()),
            }
            for track in result.tracks
        ],
    }


def add_api(tracker: Tracker, store: JobStore) -> None:
    """Add the endpoint ``/track`` to the page that is being built; its parts are not shown."""
    api = Api(tracker, store)
    with gr.Row(visible=False):
        video = gr.File(label="video", type="filepath")
        start = gr.Number(0, label="start (s)")
        end = gr.Number(None, label="end (s)")
        stride = gr.Number(1, label="stride", precision=0)
        min_score = gr.Number(DEFAULT_SCORE, label="lowest score")
        model = gr.Textbox("", label="model")
        outputs = [
            gr.File(label="tracked.mp4"),
            gr.File(label="results.json"),
            gr.File(label="tracks.csv"),
            gr.JSON(label="summary"),
        ]
        gr.Button().click(
            api.track,
            [video, start, end, stride, min_score, model],
            outputs,
            api_name="track",
            concurrency_id="model",
            concurrency_limit=1,
        )
