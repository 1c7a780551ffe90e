"""The views know numpy and Jupyter's parts, nothing else; each own view is one .py and one .js."""

import ast
import re
import sys
from pathlib import Path

import widgets

FOLDER = Path(widgets.__file__).parent
ALLOWED = {"numpy", "anywidget", "ipywidgets", "traitlets", "plotly", "widgets"}
MODULES = sorted(FOLDER.rglob("*.py"))


def test_views_import_numpy_and_jupyter_only():
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert root in ALLOWED or root in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_views_are_as_short_as_the_core():
    for file in MODULES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file.name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{file.name}: {node.name}"


def test_every_script_belongs_to_a_view_and_needs_no_other_file():
    scripts = sorted(FOLDER.glob("*.js"))
    assert len(scripts) >= 3
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        if script.name == "parts.js":  # put before the others' text, see widgets.view.script
            assert "export" not in text
            continue
        assert script.with_suffix(".py").exists()
        assert re.search(r"^\s*import\s|\bimport\(|https?://", text.replace("http://www.w3.org/2000/svg", "")) is None
        assert "export default" in text


def test_public_names_are_there_and_explained_with_an_example():
    for name in widgets.__all__:
        assert "Example" in getattr(widgets, name).__doc__, name
