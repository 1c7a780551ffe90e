"""What the page shows of a result: one frame, a table of tracks, the kinds of things a model knows."""

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cavis import rle
from cavis.demo.jobs import GoneError, Job
from cavis.records import Track, VideoResult
from cavis.video import VideoError
from cavis.visualization.figures import clearest_frame, spans, thumbnail
from cavis.visualization.overlay import OverlayStyle, caption, render_frame
from cavis.visualization.palette import hex_colour

DEFAULT_SCORE = 0.3
"""A track below this is not shown until the visitor asks for it."""
DRAWN = ("masks", "boxes", "labels", "trails")
DEFAULT_DRAWN = ("masks", "labels")
_TRAIL_FRAMES = 15


@dataclass(frozen=True)
class View:
    """How a visitor wants to see the result."""

    min_score: float = DEFAULT_SCORE
    """Tracks that score less are not shown, 0 ... 1."""
    drawn: tuple[str, ...] = DEFAULT_DRAWN
    """Out of ``DRAWN``."""
    only: tuple[int, ...] = ()
    """Ids of the tracks to bring out; none: all alike."""
    kinds: tuple[str, ...] | None = None
    """Categories of the tracks that are shown; None: all."""

    @property
    def style(self) -> OverlayStyle:
        """For the overlay."""
        masks = "masks" in self.drawn
        return OverlayStyle(
            mask_alpha=0.45 if masks else 0.0,
            contour=None if masks else 0.0,
            box="boxes" in self.drawn,
            label="labels" in self.drawn,
            trail=_TRAIL_FRAMES if "trails" in self.drawn else 0,
        )

    @property
    def selected(self) -> tuple[int, ...] | None:
        """For the overlay."""
        return self.only or None

    def of(self, job: Job) -> VideoResult:
        """The tracks that are shown; a GoneError if the job has no result."""
        if job.result is None:
            raise GoneError("There is no result yet: press Track first.")
        return job.result.filter(self.min_score, categories=self.kinds)


def picture(job: Job, view: View, t: int) -> UInt8[np.ndarray, "H W 3"]:
    """Frame ``t`` with the tracks drawn on it; a number outside of the clip means its first or last frame."""
    result = view.of(job)
    t = min(max(0, t), len(result) - 1)
    return render_frame(job.source()[t], result, t, view.style, view.selected)


def track_at(job: Job, view: View, t: int, x: int, y: int) -> int | None:
    """Which of the shown tracks covers pixel (``x``, ``y``) of frame ``t``: its id, the best one if several do."""
    result = view.of(job)
    if not 0 <= t < len(result):
        return None
    for track in result.tracks:
        mask = track.masks[t]
        if mask is not None and 0 <= y < mask.height and 0 <= x < mask.width and rle.decode(mask)[y, x]:
            return track.id
    return None


def kinds_found(result: VideoResult) -> list[str]:
    """The categories of a result, that of the best track first."""
    return list(dict.fromkeys(result.category(track) for track in result.tracks))


def choices(result: VideoResult) -> list[tuple[str, int]]:
    """The tracks by name, for a list to choose from."""
    return [(caption(result, track, score=False), track.id) for track in result.tracks]


def table(job: Job, view: View) -> str:
    """The shown tracks as an HTML table, or a sentence that says why there is none."""
    result = view.of(job)
    if not result.tracks:
        return f'<p class="cavis-note" role="status">{escape(nothing_found(job, view))}</p>'
    rows = "".join(_row(job, result, track) for track in result.tracks)
    names = ("Track", "Score", "Seen in", "From – to")
    head = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in names)
    body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="cavis-scroll" tabindex="0"><table class="cavis-tracks">{body}</table></div>'


def nothing_found(job: Job, view: View) -> str:
    """Why no track is shown, and what to try."""
    best = job.result.tracks[0].score if job.result and job.result.tracks else 0.0
    if best <= 0:
        return "The model found nothing in this clip that it knows."
    if view.kinds is not None and job.result and job.result.filter(view.min_score).tracks:
        return "No track of the kinds that are ticked. Tick others to see theirs."
    return (
        f"No track scores {view.min_score:.2f} or more; the best one scores {best:.2f}. "
        "Move “Lowest score to show” down to see the less certain ones."
    )


def headline(job: Job, view: View) -> str:
    """What was found, in a sentence."""
    shown, frames = len(view.of(job).tracks), len(view.of(job))
    things = f"{shown} {'track' if shown == 1 else 'tracks'}" if shown else "No track"
    return f"{things} in {frames} {'frame' if frames == 1 else 'frames'}"


def _row(job: Job, result: VideoResult, track: Track) -> str:
    name = escape(caption(result, track, score=False))
    seen = int(track.visible.sum())
    if seen:
        runs = spans(track)
        first, last = result.timestamps[runs[0][0]], result.timestamps[runs[-1][1]]
        span = f"{first:.1f} – {last:.1f} s"
    else:
        span = "–"
    return (
        f'<tr><td>{_image(job, track)}</td><th scope="row"><span class="cavis-dot" '
        f'style="background:{hex_colour(track.id)}"></span>{name}</th>'
        f"<td>{track.score:.2f}</td><td>{seen} of {len(result)}</td><td>{span}</td></tr>"
    )


def _image(job: Job, track: Track) -> str:
    if not track.visible.any():
        return ""
    try:
        return f'<img alt="" width="56" height="56" src="{_thumbnail(job, track)}">'
    except VideoError:  # a damaged frame: the table is worth more than one picture in it
        return ""


def _thumbnail(job: Job, track: Track) -> str:
    """A track where it is seen best, as a data address; made once."""
    if track.id not in job.thumbnails:
        t = clearest_frame(track)
        job.thumbnails[track.id] = data_address(thumbnail(job.source()[t], track, t, size=112))
    return job.thumbnails[track.id]


def data_address(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """A picture inside an address, so that it needs no file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def kinds(categories: tuple[str, ...]) -> str:
    """The kinds of things a model can recognise, as an HTML list."""
    items = "".join(f"<li>{escape(name.replace('_', ' '))}</li>" for name in categories)
    return f'<ul class="cavis-kinds">{items}</ul>'
