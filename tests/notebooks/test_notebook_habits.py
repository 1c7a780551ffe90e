"""What holds for every notebook; that they run is shown by pytest itself, which executes ``notebooks/`` (nbmake)."""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PUBLIC = {"cavis", "cavis.analysis", "cavis.data", "cavis.data.synthetic", "cavis.training", "widgets"}
LONGEST = 5
SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?```python\n(.*?)```.*?</details>", re.DOTALL)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def prose(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_notebooks_and_pytest_executes_them(pytestconfig):
    assert len(NOTEBOOKS) >= 2
    assert "notebooks" in pytestconfig.getini("testpaths")
    assert pytestconfig.getoption("nbmake")


@each
def test_both_forms_of_a_notebook_say_the_same(path):
    notebook, script = nbformat.read(path, as_version=4), jupytext.read(path.with_suffix(".py"))
    first, second = ([(cell.cell_type, cell.source) for cell in one.cells] for one in (notebook, script))
    assert first == second
    assert notebook.metadata.kernelspec.name == "python3"


@each
def test_no_output_is_committed(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    assert "widgets" not in notebook.metadata


@each
def test_no_function_is_longer_than_five_lines(path):
    for node in ast.walk(ast.parse(code(nbformat.read(path, as_version=4)))):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            assert node.end_lineno - node.lineno + 1 <= LONGEST, ast.unparse(node)[:80]
        assert not isinstance(node, ast.ClassDef)


@each
def test_only_public_names_are_imported(path):
    for node in ast.walk(ast.parse(code(nbformat.read(path, as_version=4)))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("cavis", "widgets"):
            assert node.module in PUBLIC
            assert not any(alias.name.startswith("_") for alias in node.names)


@each
def test_a_notebook_ends_with_three_exercises_with_checks_and_hidden_solutions(path):
    notebook = nbformat.read(path, as_version=4)
    last = prose(notebook).split("## Exercises")[-1]
    assert len(SOLUTION.findall(last)) == 3
    checked = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "= ...\n" in cell.source]
    assert len(checked) == 3
    assert all("assert " in cell for cell in checked)


@each
def test_a_notebook_says_what_the_paper_claims_and_what_we_measured(path):
    words = prose(nbformat.read(path, as_version=4))
    for what in ("the paper claims", "we measured", "what differs"):
        assert what in words.lower()
