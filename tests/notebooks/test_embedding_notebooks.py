"""Notebooks 01 and 04 run from top to bottom, in the fast mode; their pairs agree and their solutions are right."""

import ast
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
import pytest
from executed import keep_executed
from nbmake.nb_run import NotebookRun
from PIL import Image

from cavis import open_video
from cavis.cli.track import track

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ("01_track_a_clip", "04_embedding_space")
PUBLIC = {"cavis", "cavis.analysis", "cavis.data.synthetic", "widgets"}
LONGEST = 5
SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?```python\n(.*?)```.*?</details>", re.DOTALL)
QUESTION = re.compile(r"^\w+ = None  # your answer$", re.MULTILINE)

each = pytest.mark.parametrize("name", NOTEBOOKS)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fast mode, with a folder of its own for what is saved."""
    for name, value in {"CAVIS_FAST": "1", "CAVIS_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def cells(notebook: nbformat.NotebookNode, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in cells(read(name), "markdown"))


def solved(name: str) -> nbformat.NotebookNode:
    """The notebook with its hidden solutions in the place of the questions."""
    notebook, solutions = read(name), SOLUTION.findall(prose(name))
    asking = [cell for cell in cells(notebook, "code") if QUESTION.search(cell.source)]
    for cell, solution in zip(asking, solutions, strict=True):
        question = QUESTION.search(cell.source).group()
        assert solution.startswith(question.split()[0]) or f"\n{question.split()[0]} = " in solution
        cell.source = cell.source.replace(question, solution.rstrip())
    return notebook


@each
def test_a_notebook_runs_with_its_solutions_and_every_picture_can_be_read_without_a_kernel(name: str, tmp_path: Path):
    """All cells are as committed but for the answers, which the checks then have something to say about."""
    nbformat.write(solved(name), tmp_path / "notebook.ipynb")
    result = NotebookRun(tmp_path / "notebook.ipynb", default_timeout=600).execute()
    keep_executed(result.nb, name)
    assert result.error is None, result.error.trace
    outputs = [output for cell in cells(result.nb, "code") for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr" and "rror" in output.text]
    stills = [output for output in outputs if "<svg" in "".join(output.get("data", {}).get("text/html", ""))]
    assert len(stills) >= (1 if name.startswith("01") else 4)
    saved = [path.read_text() for path in (tmp_path / "runs").rglob("*.svg")]
    assert saved
    assert all("tiny" in picture or "true objects" in picture for picture in saved)
    if name.startswith("04"):
        maps = [picture for picture in saved if "t-SNE" in picture]
        siblings = ("tiny_minvis", "tiny_ctvis", "tiny_cavis")
        assert len(maps) == 2 + len(siblings)
        for sibling in siblings:
            assert sibling in (tmp_path / "runs" / "04_embedding_space" / f"{sibling}.svg").read_text()
        for word in ("layer", "perplexity 15", "seed 0", "scikit-learn", "torch"):
            assert all(word in " ".join(re.findall(r">([^<]*)<", picture)) for picture in maps), word


def run_here(name: str, last: str = "", **replaced: str) -> dict[str, Any]:
    """Run the code of a notebook, to the cell that has ``last`` in it, with other values of some of its names."""
    values: dict[str, Any] = {}
    for cell in cells(read(name), "code"):
        code = cell.source
        for variable, value in replaced.items():
            code = re.sub(rf"^{variable} = .*$", lambda _, new=f"{variable} = {value}": new, code, flags=re.MULTILINE)
        exec(code, values)
        if last and last in code:
            break
    return values


def test_what_notebook_01_keeps_is_what_the_command_line_writes_of_the_same_frames(tmp_path: Path):
    there = run_here("01_track_a_clip", last="write_film(")
    track(there["CLIP"], tmp_path, model="tiny", end=float(there["times"][-1]) + 0.05)
    for file in ("results.json", "tracks.csv"):
        assert (there["folder"] / file).read_bytes() == (tmp_path / file).read_bytes()
    with open_video(there["CLIP"]) as clip, open_video(there["folder"] / "tracked.mp4") as film:
        np.testing.assert_allclose(film.timestamps, clip.timestamps[: len(there["frames"])], atol=1e-3)


def test_notebook_01_takes_a_clip_of_ones_own_even_if_nothing_is_found_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    for number in range(2):
        Image.new("RGB", (96, 64), "grey").save(tmp_path / f"{number}.png")
    there = run_here("01_track_a_clip", CLIP=f"Path({str(tmp_path)!r})")
    assert there["model"].about.name == "lite"
    assert not there["sure"].tracks
    assert "No track scores 0.3 or more." in capsys.readouterr().out


@each
def test_every_check_asserts_something_of_the_answer(name: str):
    for cell in cells(read(name), "code"):
        if question := QUESTION.search(cell.source):
            answer = question.group().split()[0]
            checks = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Assert)]
            assert checks
            assert all(
                answer in {node.id for node in ast.walk(one.test) if isinstance(node, ast.Name)} for one in checks
            )


@each
def test_both_forms_of_a_notebook_say_the_same_and_no_output_is_committed(name: str):
    notebook, script = read(name), jupytext.read(ROOT / "notebooks" / f"{name}.py")
    first, second = ([(cell.cell_type, cell.source) for cell in one.cells] for one in (notebook, script))
    assert first == second
    assert notebook.metadata.kernelspec.name == "python3"
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in cells(notebook, "code"))
    assert "widgets" not in notebook.metadata


@each
def test_a_notebook_defines_nothing_long_and_imports_public_names_only(name: str):
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in cells(read(name), "code")))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= LONGEST, node.name
        assert not isinstance(node, ast.ClassDef)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("cavis", "widgets"):
            assert node.module in PUBLIC
            assert not any(alias.name.startswith("_") for alias in node.names)


@each
def test_a_notebook_ends_with_three_exercises_and_says_what_is_claimed_and_measured(name: str):
    last = prose(name).split("## Exercises")[-1]
    assert [int(number) for number in re.findall(r"^\*\*(\d)\.\*\*", last, re.MULTILINE)] == [1, 2, 3]
    assert len(SOLUTION.findall(last)) == 3
    assert "What the paper claims, what we measured, what differs" in prose(name)
