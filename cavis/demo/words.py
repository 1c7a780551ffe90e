"""The page's fixed pieces of HTML; everything that comes from elsewhere is escaped here."""

import base64
from html import escape
from pathlib import Path

from cavis.config import Stage as ModelStage
from cavis.demo.limits import duration_words
from cavis.demo.models import Fetching
from cavis.demo.offers import Offer, size_words
from cavis.demo.pace import Stage
from cavis.demo.tracking import Update
from cavis.demo.viewer import data_address, kinds
from cavis.presets import DATA_SETS

TITLE = "CAVIS · follow every object through a video"
_STAGES: dict[Stage, str] = {
    "reading": "Reading the clip",
    "tracking": "Tracking",
    "encoding": "Cutting out the masks",
    "drawing": "Drawing the video",
}
_DEVICES = {"cpu": "the CPU", "cuda": "a CUDA GPU", "mps": "an Apple GPU"}


HEADER = """
<header class="cavis-header">
<p class="cavis-brand">CAVIS Lab</p>
<h1>Follow every object through a video</h1>
<p class="cavis-lead">Each thing in your clip is outlined and keeps its own number and colour, from its first frame to
its last, also where it was hidden for a while. Two that look just the same can still be mixed up.</p>
</header>"""
"""The top of the page: what this is."""


_WAYS: dict[ModelStage, str] = {
    "segmenter": "",
    "tracker": "Online: it goes through the clip frame by frame.",
    "refiner": "Offline: when it has seen the whole clip, it looks at each track once more.",
}
"""What a model's stage means for who chooses it."""


def model(offer: Offer, device: str) -> str:
    """What a visitor should know of a model before it is used: what it has seen, how slow it is, its licence.

    ``device`` is the kind of a torch device.
    """
    said = f"“{escape(offer.world)}” " if offer.world else ""
    lines = [f"<p>{said}{_WAYS[offer.stage]} What it recognises is listed at the end of this page.</p>"]
    if not offer.here:
        lines.append(f"<p>It is not on this computer yet: {size_words(offer.megabytes)} or more to download.</p>")
    if offer.slow and device == "cpu":
        time = duration_words(offer.seconds)
        lines.append(f'<p class="cavis-slow">It is large: without a GPU one frame takes {time}, very roughly.</p>')
    return f'<div class="cavis-model" role="status">{"".join(lines)}{_terms(offer)}</div>'


def _terms(offer: Offer) -> str:
    """Licence, citation and the paper's numbers of published weights."""
    if offer.entry is None:
        return ""
    terms, paper = offer.entry.terms, offer.entry.paper
    named = (("AP", paper.ap), ("VPQ", paper.vpq), ("STQ", paper.stq))
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in named if value is not None)
    data = DATA_SETS[offer.entry.data].title if offer.entry.data in DATA_SETS else offer.entry.data
    score = f"<p>Its authors report {numbers} on {escape(data)}: {_NUMBERS}</p>" if numbers else ""
    return (
        f"<details><summary>Whose it is: licence and citation</summary><p>{escape(terms.licence)}</p>{score}"
        f"<pre>{escape(terms.citation)}</pre></details>"
    )


_NUMBERS = (
    "how much of what there is it finds, follows and names rightly, 0 to 1 (AP of things that can be counted, VPQ and "
    "STQ of everything in the picture). Compare only models of the same data set."
)


def download(state: Fetching) -> str:
    """How far a download is."""
    if state.importing:
        return bar("Getting the model ready", 100, f"{state.done / 1e6:.0f} MB came")
    if not state.total:
        return bar("Downloading", 0, f"{state.done / 1e6:.0f} MB so far" if state.done else "asking for it …")
    counts = f"{state.done / 1e6:.0f} of {state.total / 1e6:.0f} MB"
    return bar("Downloading", round(100 * state.done / state.total), counts)


def bar(what: str, percent: int, counts: str, left: str = "") -> str:
    """A bar, and a line under it."""
    return f"""
<div class="cavis-progress"><div class="cavis-bar" role="progressbar" aria-label="{what}" aria-valuemin="0"
 aria-valuemax="100" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div>
<p><strong>{what}</strong> <span>{counts}</span> <span class="cavis-left">{left}</span></p></div>"""


def section(number: int, title: str, text: str = "") -> str:
    """The heading of a step."""
    lead = f"<p>{escape(text)}</p>" if text else ""
    return f'<div class="cavis-section"><h2><span aria-hidden="true">{number}</span>{escape(title)}</h2>{lead}</div>'


def about(offer: Offer, device: str) -> str:
    """What a model is, what it can recognise, and what it has seen; ``device`` is the kind of a torch device."""
    training = f"<p>How it was trained: {escape(offer.training)}</p>" if offer.training else ""
    world = f"<p>In its own words: <em>{escape(offer.world)}</em></p>" if offer.world else ""
    return f"""
<div class="cavis-about">
<p><strong>{escape(offer.name)}</strong> runs on {_DEVICES.get(device, escape(device))}. {_subjects(offer)}:</p>
{kinds(offer.categories)}{world}{training}
<p>{_method(offer)} A score is how sure it is of a track, over all frames.</p>
</div>"""


def _subjects(offer: Offer) -> str:
    """What it finds, before the list of it."""
    count = len(offer.categories)
    if offer.stuff == 0:
        rest = "" if "object" in offer.categories else ", and nothing else"
        return f"It finds instances of these {count} kinds of things{rest}"
    return (
        f"It gives every part of the picture to one of these {count} kinds of things and stuff: of "
        f"{count - offer.stuff} kinds of things each instance on its own, and {offer.stuff} kinds of stuff (such as "
        "sky or road), which are not counted"
    )


_PAPER = '<a href="https://arxiv.org/abs/2407.03010" rel="noopener">Context-Aware Video Instance Segmentation</a>'


def _method(offer: Offer) -> str:
    """How it goes through a clip, by its stage and whether it has context."""
    looks = f"by how they look <em>and by what surrounds them</em> ({_PAPER})" if offer.context else "by how they look"
    frame = "It goes through the clip frame by frame: first it finds what is in each frame, then "
    if offer.stage == "segmenter":
        return f"{frame}it links that to the frame before, {looks}. It has not learned to track."
    online = f"{frame}it finds the tracks of the frame before again, {looks}."
    if offer.stage == "tracker":
        return online
    return f"{online} When it has seen the whole clip, it looks at each track once more, from beginning to end."


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
    return bar(_STAGES[update.stage], percent, f"{counts}{rate}", f"{duration_words(update.remaining)} left")


def waiting() -> str:
    """What stands where the bar will be, until it is the visitor's turn."""
    return '<p class="cavis-waiting" role="status"><strong>Waiting for the model …</strong></p>'


def preview(update: Update) -> str | None:
    """The last picture; None where there is no new one."""
    if update.preview is None:
        return None
    address = data_address(update.preview)
    return f'<img class="cavis-preview" alt="The clip as far as it is tracked" src="{address}">'
