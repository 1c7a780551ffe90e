"""Notebooks 02, 03 and 05 run from top to bottom, in the fast mode; their pairs agree and their solutions are right."""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from executed import keep_executed
from nbmake.nb_run import NotebookRun

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = {"02_context_filters": 0, "03_train_the_stages": 3, "05_ablations": 1}
"""And how many trainings run in each when nobody clicks."""


@pytest.fixture
def fast(monkeypatch, tmp_path):
    """The fast mode, with a folder of its own for runs."""
    root = str(FOLDER.parent)
    for name, value in {"CAVIS_FAST": "1", "CAVIS_RUNS": str(tmp_path), "PYTHONPATH": root}.items():
        monkeypatch.setenv(name, value)


def code_of(name: str) -> list[str]:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_from_top_to_bottom(name, fast):
    result = NotebookRun(FOLDER / f"{name}.ipynb", default_timeout=600).execute()
    keep_executed(result.nb, name)
    assert result.error is None, result.error.trace
    printed = [
        output.text for cell in result.nb.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    ]
    ended = [text for text in printed if text.split()[0] in ("running", "failed", "finished")]
    assert ended == ["finished \n"] * LESSONS[name], "a training that did not come to its end"
    widgets = [
        output.data
        for cell in result.nb.cells
        for output in cell.get("outputs", ())
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert widgets
    assert all(len(data["text/html"]) > 500 for data in widgets), "a widget leaves nothing without a kernel"


@pytest.mark.parametrize("name", LESSONS)
def test_the_pair_of_a_notebook_says_the_same_and_no_outputs_are_kept(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    pair = jupytext.read(FOLDER / f"{name}.py")
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (notebook, pair)]
    assert cells[0] == cells[1]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize("name", LESSONS)
def test_a_notebook_defines_nothing_long_and_imports_public_names_only(name):
    tree = ast.parse("\n".join(code_of(name)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 5, node.name
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("cavis", "widgets"):
            assert re.match(r"(cavis|widgets|cavis\.(training|analysis|data)(\..+)?)$", node.module), node.module
            assert not any(alias.name.startswith("_") for alias in node.names)


@pytest.mark.parametrize("name", LESSONS)
def test_there_are_three_exercises_each_with_a_check_and_a_hidden_solution(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    after = text[text.index("## Exercises") :]
    assert after.count("<details>") == 3
    assert [int(number) for number in re.findall(r"^\*\*(\d)\.\*\*", after, re.M)] == [1, 2, 3]
    assert "What the paper claims, what we measured, what differs" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_the_hidden_solutions_pass_the_checks(name, fast):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    solutions = re.findall(r"</summary>\s+`([^`]+)`", _text(notebook))
    assert len(solutions) == 3
    for solution in solutions:
        _put(notebook, solution)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )
    assert printed.count("right!") == 3
    assert "not answered yet" not in printed


def _text(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def _put(notebook: nbformat.NotebookNode, solution: str) -> None:
    """Write a solution to the end of the cell that asks for it."""
    name = re.match(r"\w+", solution).group()
    asked = rf"^({name}(, \w+)? = (None|None, None)\b|def {name}\()"
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and re.search(asked, cell.source, re.M))
    cell.source += f"\n{solution}"
