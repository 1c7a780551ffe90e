"""The page: its parts, where they stand, and which of the visitor's actions calls which handler."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from cavis.demo import words
from cavis.demo.api import add_api
from cavis.demo.examples import Shelf
from cavis.demo.handlers import Handlers, Parts, Updates
from cavis.demo.jobs import JobStore
from cavis.demo.limits import DemoLimits
from cavis.demo.model_handlers import ModelHandlers, choices
from cavis.demo.models import Models
from cavis.demo.tracking import Tracker
from cavis.demo.viewer import DEFAULT_DRAWN, DEFAULT_SCORE, DRAWN

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
Card = tuple[gr.HTML, gr.Button]
"""An example to pick: its picture and its title, both to be clicked."""
_PRIVACY = (
    "Your clip is seen by nobody else, and deleted within an hour or so after its last use. Upload clips of people "
    "only if they know of it and you may; this is not for watching people."
)


def theme() -> gr.themes.Base:
    """Calm colours, and fonts that every computer has: nothing is fetched from elsewhere."""
    calm = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=list(_FONT), font_mono=list(_MONO)
    )
    # The first of each pair is for the bright page, the other for the dark one; both read well on their background.
    return calm.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent="*primary_600",
    )


def css() -> str:
    """The style sheet."""
    return (Path(str(files("cavis.demo"))) / "page.css").read_text(encoding="utf-8")


def build_page(tracker: Tracker, store: JobStore, shelf: Shelf) -> gr.Blocks:
    """Put the page together; nothing is served yet."""
    limits = tracker.limits
    keep = (300, int(limits.keep_seconds))
    with gr.Blocks(title=words.TITLE, analytics_enabled=False, delete_cache=keep) as page:
        gr.HTML(words.HEADER)
        model = _model(tracker.models)
        choose, cards = _choose(limits, shelf)
        job = gr.State(None, time_to_live=limits.keep_seconds + limits.longest_wait)
        parts = Parts(**model, **choose, **_part(), **_results(), **_about(tracker.models), job=job)
        handlers = Handlers(tracker, store, shelf, parts)
        _connect_models(page, ModelHandlers(tracker.models, handlers, parts), parts)
        _connect_choice(handlers, parts, cards)
        _connect_work(handlers, parts)
        _connect_views(handlers, parts)
        add_api(tracker, store)
        page.unload(handlers.forget)
    page.queue(max_size=limits.waiting, default_concurrency_limit=4)
    return page


def _model(models: Models) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Group(elem_id="model-box"):
        parts["model"] = gr.Dropdown(
            choices(models), value=models.first.name, label="Model: what it can recognise", elem_id="model"
        )
        parts["model_note"] = gr.HTML(words.model(models.offer(), models.device), elem_id="model-note")
    with gr.Row():
        parts["download"] = gr.Button("Download this model", visible=False, variant="primary", elem_id="download")
        parts["stop_download"] = gr.Button(
            "Cancel the download", visible=False, variant="stop", elem_id="stop-download"
        )
    return parts | {"download_note": gr.HTML(elem_id="download-note")}


def _choose(limits: DemoLimits, shelf: Shelf) -> tuple[dict[str, Any], list[Card]]:
    gr.HTML(words.section(1, "Choose a clip", f"{limits.sentence()} {_PRIVACY}"))
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            upload = gr.Video(
                label="Your clip", sources=["upload"], height=280, buttons=[], elem_id="upload", include_audio=True
            )
        with gr.Column(min_width=300):
            gr.HTML('<p class="cavis-or">… or take an example; its result is there at once</p>')
            cards = _examples(shelf)
    return {"upload": upload, "choose_note": gr.HTML(elem_id="choose-note")}, cards


def _examples(shelf: Shelf) -> list[Card]:
    cards = []
    with gr.Row():
        for example in shelf.examples:
            with gr.Column(min_width=110, elem_classes="cavis-card"):
                picture = gr.HTML(words.poster(shelf.poster(example), example.title))
                button = gr.Button(example.title, size="sm", elem_id=f"example-{example.name}")
                cards.append((picture, button))
    return cards


def _part() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Column(visible=False) as box:
        gr.HTML(words.section(2, "Choose the part to track"))
        with gr.Row():
            parts["start"] = gr.Slider(0, 1, 0, label="Start (seconds)", buttons=[], min_width=220)
            parts["end"] = gr.Slider(0, 1, 1, label="End (seconds)", buttons=[], min_width=220)
            parts["stride"] = gr.Slider(1, 2, 1, step=1, label="Take every n-th frame", buttons=[], min_width=220)
        parts["part_note"] = gr.HTML(elem_id="part-note")
        with gr.Row():
            parts["track"] = gr.Button("Track", variant="primary", size="lg", elem_id="track", scale=3)
            parts["cancel"] = gr.Button("Cancel", variant="stop", size="lg", visible=False, elem_id="cancel", scale=1)
        parts["progress"] = gr.HTML(elem_id="progress")
        parts["preview"] = gr.HTML(elem_id="preview")
        parts["run_note"] = gr.HTML(elem_id="run-note")
    return parts | {"part_box": box}


def _results() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Column(visible=False, elem_id="results") as box:
        gr.HTML(words.section(3, "See what was found"))
        parts["found"] = gr.HTML()
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320, scale=6):
                parts["video"] = gr.Video(
                    label="Tracked", interactive=False, autoplay=True, loop=True, buttons=[], elem_id="tracked"
                )
            with gr.Column(min_width=320, scale=5):
                parts["table"] = gr.HTML(elem_id="tracks")
        with gr.Row():
            parts["get_video"] = gr.DownloadButton("Video (MP4)", size="md", elem_id="get-video", min_width=160)
            parts["get_results"] = gr.DownloadButton("Masks (JSON)", size="md", elem_id="get-results", min_width=160)
            parts["get_tracks"] = gr.DownloadButton("Table (CSV)", size="md", elem_id="get-tracks", min_width=160)
        gr.HTML(words.section(4, "Look closer", "None of this runs the model again."))
        parts |= _closer()
    return parts | {"result_box": box}


def _closer() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320, scale=6):
            parts["picture"] = gr.Image(
                label="Frame", format="jpeg", interactive=False, buttons=["fullscreen"], elem_id="frame-picture"
            )
            parts["frame"] = gr.Slider(0, 1, 0, step=1, label="Frame number", buttons=[], elem_id="frame")
        with gr.Column(min_width=320, scale=5):
            parts["min_score"] = gr.Slider(
                0,
                1,
                DEFAULT_SCORE,
                step=0.01,
                label="Lowest score to show",
                info="A score is how sure the model is of a track, over all frames: 0 to 1.",
                elem_id="min-score",
            )
            parts["kinds"] = gr.CheckboxGroup([], label="Kinds to show", visible=False, elem_id="kinds")
            parts["drawn"] = gr.CheckboxGroup(
                [(name.capitalize(), name) for name in DRAWN], value=list(DEFAULT_DRAWN), label="Draw", elem_id="drawn"
            )
            parts["only"] = gr.CheckboxGroup(
                [], label="Bring out", info="Choose tracks here, or click them in the frame.", elem_id="only"
            )
            parts["redraw"] = gr.Button("Draw the video like this", elem_id="redraw")
    gr.HTML('<p class="cavis-label">When each track is seen</p>')
    parts["timeline"] = gr.Plot(show_label=False, elem_id="timeline")
    return parts


def _about(models: Models) -> dict[str, Any]:
    with gr.Accordion("About the model: what it can recognise, and what it has seen", open=False, elem_id="about"):
        return {"about": gr.HTML(words.about(models.offer(), models.device))}


def _connect_models(page: gr.Blocks, handlers: ModelHandlers, parts: Parts) -> None:
    quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    chosen = [parts.model, parts.job, parts.start, parts.end, parts.stride]
    told = [parts.model_note, parts.about, parts.download, parts.choose_note, parts.part_note, parts.track]
    page.load(handlers.refresh, None, [parts.model], queue=False, **quick)
    parts.model.input(handlers.choose, chosen, [*told, parts.download_note], queue=False, **quick)
    download = parts.download.click(
        handlers.fetch,
        parts.model,
        [parts.model, parts.download, parts.stop_download, parts.download_note],
        concurrency_id="download",
        concurrency_limit=4,
        **quick,
    )
    download.then(handlers.settle, chosen, told, queue=False, **quick)
    parts.stop_download.click(handlers.stop, parts.model, None, queue=False, **quick)


def _connect_choice(handlers: Handlers, parts: Parts, cards: list[Card]) -> None:
    everything = list(parts)
    private = {"api_visibility": "private", "show_progress_on": [parts.upload, parts.choose_note]}
    chosen = [parts.upload, parts.model]
    parts.upload.upload(handlers.choose_upload, chosen, everything, concurrency_id="probe", **private)
    parts.upload.clear(handlers.clear, None, everything, queue=False, **private)
    for index, card in enumerate(cards):
        for part in card:
            part.click(_picker(handlers, index), parts.model, everything, concurrency_id="probe", **private)
    for slider in (parts.start, parts.end, parts.stride):
        slider.change(
            handlers.judge_part,
            [parts.job, parts.start, parts.end, parts.stride],
            [parts.part_note, parts.track],
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )


def _picker(handlers: Handlers, index: int) -> Callable[[str, gr.Request], Updates]:
    def pick(model: str, request: gr.Request) -> Updates:
        return handlers.choose_example(index, model, request)

    return pick


def _connect_work(handlers: Handlers, parts: Parts) -> None:
    ready = parts.track.click(
        handlers.wait,
        None,
        [parts.track, parts.cancel, parts.progress, parts.preview, parts.run_note, parts.result_box],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    work = ready.then(
        handlers.track,  # the name "track" is for programs
        [parts.job, parts.start, parts.end, parts.stride, parts.min_score, parts.drawn],
        [part for part in parts if part not in (parts.job, parts.upload)],
        concurrency_id="model",
        concurrency_limit=1,
        show_progress="full",
        show_progress_on=parts.progress,
        api_name="track_here",
        api_visibility="private",
    )
    parts.cancel.click(
        handlers.cancel,
        parts.job,
        [parts.track, parts.cancel, parts.progress, parts.preview, parts.run_note],
        cancels=[work],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    parts.redraw.click(
        handlers.redraw,
        [parts.job, parts.min_score, parts.kinds, parts.drawn, parts.only],
        [parts.redraw, parts.video, parts.get_video, parts.run_note],
        concurrency_id="draw",
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )


def _connect_views(handlers: Handlers, parts: Parts) -> None:
    quick = {
        "queue": False,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "api_visibility": "private",
    }
    seen = [parts.job, parts.frame, parts.min_score, parts.kinds, parts.drawn, parts.only]
    filtered = [parts.found, parts.table, parts.timeline, parts.only, parts.get_results, parts.get_tracks]
    parts.frame.change(handlers.show, seen, [parts.picture, parts.run_note], **quick)
    for part in (parts.drawn, parts.only):
        part.input(handlers.restyle, seen, [parts.picture, parts.redraw, parts.run_note], **quick)
    parts.frame.release(handlers.mark, seen[:4], [parts.timeline, parts.run_note], **quick)
    for part in (parts.min_score, parts.kinds):
        part.input(handlers.filter, seen, [*filtered, parts.picture, parts.redraw, parts.run_note], **quick)
    parts.picture.select(handlers.point, seen, [parts.only, parts.picture, parts.redraw, parts.run_note], **quick)
