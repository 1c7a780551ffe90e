"""A page without Jupyter on which a view's own JavaScript runs, on a model that keeps what it is told."""

import base64
import json
from pathlib import Path

from playwright.sync_api import Page

import widgets

MODEL = """
class Model {
  constructor(state) { this.state = state; this.heard = {}; this.sent = []; }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; this.tell(`change:${name}`); }
  save_changes() { this.saved = (this.saved || 0) + 1; }
  on(name, listener) { (this.heard[name] ||= []).push(listener); }
  off(name, listener) { this.heard[name] = (this.heard[name] || []).filter((one) => one !== listener); }
  send(content) { this.sent.push(content); }
  tell(name, ...args) { for (const listener of this.heard[name] || []) listener(...args); }
}
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.mount = async (name, esm, state) => {
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  for (const [key, value] of Object.entries(state)) if (value?.base64 !== undefined) state[key] = bytes(value.base64);
  const model = (window[name] = new Model(state));
  const el = Object.assign(document.createElement("div"), { id: name });
  document.body.append(el);
  model.cleanup = await (await import(url)).default.render({ model, el });
};
window.answer = (name, content, buffers) => window[name].tell("msg:custom", content, buffers.map(bytes));
"""
STYLE = (Path(widgets.__file__).parent / "style.css").read_text(encoding="utf-8")


def blank(page: Page, dark: bool = False) -> None:
    """An empty page that knows how to mount views."""
    page.emulate_media(color_scheme="dark" if dark else "light")
    ground = "#16191d" if dark else "#ffffff"
    page.set_content(f"<style>body {{ margin: 12px; background: {ground} }} {STYLE}</style><body></body>")
    page.add_script_tag(content=MODEL)


def mount(page: Page, view, name: str) -> None:
    """Show a view of Python's on the page, as it is; its model is ``window[name]``."""
    hidden = ("_model", "_view", "_esm", "_css", "_anywidget", "layout", "_dom", "tabbable", "tooltip", "comm")
    state = {key: _plain(value) for key, value in view.get_state().items() if not key.startswith(hidden)}
    page.evaluate(
        "([name, esm, state]) => mount(name, esm, state)", [name, str(view._esm), json.loads(json.dumps(state))]
    )


def reply(page: Page, view, name: str) -> None:
    """Let the Python side of a view answer all that its JavaScript has asked so far."""
    answers: list = []
    send, view.send = view.send, lambda content, buffers=None: answers.append((content, buffers or []))
    for question in page.evaluate(f"{name}.sent.splice(0)"):
        view._handle_custom_msg(question, [])
    view.send = send
    for content, buffers in answers:
        page.evaluate(
            "([name, content, buffers]) => answer(name, content, buffers)",
            [name, content, [base64.b64encode(data).decode() for data in buffers]],
        )


def _plain(value):
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    return value
