"""The page's fixed pieces of HTML; everything that comes from elsewhere is escaped here."""

import base64
from html import escape
from pathlib import Path

from cavis.checkpoints.hub import ReadyModel
from cavis.demo.limits import duration_words
from cavis.demo.pace import Stage
from cavis.demo.tracking import Update
from cavis.demo.viewer import data_address, kinds

TITLE = "CAVIS · follow every object through a video"
_STAGES: dict[Stage, str] = {
    "reading": "Reading the clip",
    "tracking": "Tracking",
    "encoding": "Cutting out the masks",
    "drawing": "Drawing the video",
}
_DEVICES = {"cpu": "the CPU", "cuda": "a CUDA GPU", "mps": "an Apple GPU"}


def header(ready: ReadyModel) -> str:
    """The top of the page: what this is, and which model runs."""
    return f"""
<header class="cavis-header">
<p class="cavis-brand">CAVIS Lab</p>
<h1>Follow every object through a video</h1>
<p class="cavis-lead">Each thing in your clip is outlined and keeps its own number and colour, from its first frame to
its last, also after it was hidden or has crossed another one that looks just the same.</p>
<p class="cavis-model">Model <strong>{escape(ready.about.name)}</strong> on {device(ready)}
 · recognises {len(ready.about.config.categories)} kinds of things</p>
</header>"""


def device(ready: ReadyModel) -> str:
    """Where the model runs."""
    return _DEVICES.get(ready.device.type, escape(ready.device.type))


def section(number: int, title: str, text: str = "") -> str:
    """The heading of a step."""
    lead = f"<p>{escape(text)}</p>" if text else ""
    return f'<div class="cavis-section"><h2><span aria-hidden="true">{number}</span>{escape(title)}</h2>{lead}</div>'


def about(ready: ReadyModel) -> str:
    """What the model is, what it can recognise, and what it has seen."""
    training = f"<p>{escape(ready.about.training)}</p>" if ready.about.training else ""
    world = f"<p>In its own words: <em>{escape(ready.world)}</em></p>" if ready.world else ""
    return f"""
<div class="cavis-about">
<p><strong>{escape(ready.about.name)}</strong> ran on {device(ready)}. It finds instances of these
{len(ready.about.config.categories)} kinds of things, and nothing else:</p>
{kinds(ready.about.config.categories)}{world}{training}
<p>It goes through the clip once, frame by frame: first it finds the things in each frame, then it links them to those
of the frame before, by how they look <em>and by what surrounds them</em>
(<a href="https://arxiv.org/abs/2407.03010" rel="noopener">Context-Aware Video Instance
Segmentation</a>).
A score is how sure it is of a track's kind, averaged over all frames.</p>
</div>"""


def poster(path: Path, title: str) -> str:
    """A picture of an example."""
    address = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img class="cavis-poster" alt="{escape(title)}" src="{address}">'


def note(text: str, kind: str = "info") -> str:
    """A sentence for the visitor; ``kind`` is info, warning or error."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="cavis-note cavis-{kind}" role="{role}">{escape(text)}</p>'


def hint(text: str) -> str:
    """A plain line that changes while the visitor tries things."""
    return f'<p class="cavis-hint" role="status">{escape(text)}</p>'


def found(headline: str, notes: tuple[str, ...]) -> str:
    """The heading over a result."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in notes)
    return f'<div class="cavis-found" role="status"><strong>{escape(headline)}</strong>{lines}</div>'


def progress(update: Update) -> str:
    """The bar, what is being done, how long it will take, and a picture where there is one."""
    percent = round(100 * min(1.0, max(0.0, update.fraction)))
    counts = f"{update.done} of {update.total} frames" if update.done else f"{update.total} frames"
    rate = f" · {update.rate:.1f} frames a second" if update.rate and update.stage == "tracking" else ""
    stage = _STAGES[update.stage]
    left = duration_words(update.remaining)
    return f"""
<div class="cavis-progress"><div class="cavis-bar" role="progressbar" aria-label="{stage}" aria-valuemin="0"
 aria-valuemax="100" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div>
<p><strong>{stage}</strong> <span>{counts}{rate}</span> <span class="cavis-left">{left} left</span></p></div>"""


def waiting() -> str:
    """What stands where the bar will be, until it is the visitor's turn."""
    return '<p class="cavis-waiting" role="status"><strong>Waiting for the model …</strong></p>'


def preview(update: Update) -> str | None:
    """The last picture; None where there is no new one."""
    if update.preview is None:
        return None
    address = data_address(update.preview)
    return f'<img class="cavis-preview" alt="The clip as far as it is tracked" src="{address}">'
