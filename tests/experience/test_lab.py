"""``cavis lab``: copies that respect what a student has written, and a wheel that carries everything."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavis.cli import app
from cavis.cli.notebooks import MANIFEST, in_checkout, lay_out

ROOT = Path(__file__).parents[2]
lab_module = importlib.import_module("cavis.cli.lab")  # the package's name `lab` is the command


@pytest.fixture
def packed(tmp_path):
    source = tmp_path / "packed"
    (source / "widgets").mkdir(parents=True)
    (source / "01.ipynb").write_text("one")
    (source / "02.ipynb").write_text("two")
    (source / "widgets" / "__init__.py").write_text("three")
    return source


def test_files_are_copied_once_and_a_second_time_nothing_happens(packed, tmp_path):
    folder = tmp_path / "deep" / "lab"
    done = lay_out(folder, packed)
    assert done.new == ("01.ipynb", "02.ipynb", "widgets/__init__.py")
    assert (folder / "widgets" / "__init__.py").read_text() == "three"
    again = lay_out(folder, packed)
    assert again.new == again.updated == again.kept == ()


def test_what_a_student_edited_is_kept_and_what_nobody_touched_is_updated(packed, tmp_path):
    folder = tmp_path / "lab"
    lay_out(folder, packed)
    (folder / "01.ipynb").write_text("my work")
    (folder / "notes.txt").write_text("mine")
    for name in ("01.ipynb", "02.ipynb"):
        (packed / name).write_text("a new version")
    for _ in range(2):
        done = lay_out(folder, packed)
        assert done.kept == ("01.ipynb",)
        assert (folder / "01.ipynb").read_text() == "my work"
        assert (folder / "02.ipynb").read_text() == "a new version"
        assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["", "[1", "[]", '{"01.ipynb": 5}'])
def test_without_a_readable_record_everything_counts_as_edited(packed, tmp_path, damage):
    folder = tmp_path / "lab"
    lay_out(folder, packed)
    (folder / MANIFEST).write_text(damage)
    (folder / "01.ipynb").write_text("my work")
    assert lay_out(folder, packed).kept == ("01.ipynb",)
    assert (folder / "01.ipynb").read_text() == "my work"


def test_a_file_in_the_way_and_a_package_without_notebooks_are_told(packed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        lay_out(tmp_path / "file", packed)
    with pytest.raises(FileNotFoundError, match="expected notebooks in"):
        lay_out(tmp_path / "lab", tmp_path / "nowhere")


def test_in_a_checkout_its_own_notebooks_are_opened(monkeypatch):
    called = []
    monkeypatch.setattr(lab_module, "_become", lambda command, environment: called.append((command, environment)))
    result = CliRunner().invoke(app, ["lab", "--no-browser", "--port", "0", "--allow-root"])
    assert result.exit_code == 0, result.output
    command, environment = called[0]
    assert f"--ServerApp.root_dir={ROOT / 'notebooks'}" in command
    assert command[-2:] == ["--no-browser", "--allow-root"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert in_checkout() == ROOT / "notebooks"


def test_elsewhere_they_are_copied_first(monkeypatch, packed, tmp_path):
    called = []
    monkeypatch.setattr(lab_module, "_become", lambda command, environment: called.append((command, environment)))
    monkeypatch.setattr("cavis.cli.notebooks.in_checkout", lambda: None)
    monkeypatch.setattr("cavis.cli.notebooks.lay_out.__defaults__", (packed,))
    folder = tmp_path / "mine"
    result = CliRunner().invoke(app, ["lab", "--folder", str(folder)])
    assert result.exit_code == 0, result.output
    assert str(folder) in result.output.replace("\n", "")
    assert (folder / "01.ipynb").exists()
    assert f"--ServerApp.root_dir={folder}" in called[0][0]


@pytest.mark.slow
def test_the_wheel_carries_notebooks_and_widgets_and_a_copy_of_them_works(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=600)
    wheel = next(tmp_path.glob("cavis-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    lab = "cavis/assets/lab/"
    notebooks = {f"{lab}{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    widgets = {f"{lab}widgets/{path.name}" for path in (ROOT / "widgets").glob("*.[pj]*") if path.is_file()}
    assert len(notebooks) >= 3
    assert len(widgets) >= 6
    assert (notebooks | widgets) <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"cavis"}
    program = (
        "from pathlib import Path; from cavis.cli.notebooks import in_checkout, lay_out; assert in_checkout() is None; "
        "print(len(lay_out(Path('lab')).new)); import sys; sys.path.insert(0, 'lab'); "
        "import widgets; print(widgets.TrainingPanel.__name__, widgets.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "TrainingPanel" in done.stdout
    assert str(Path("lab") / "widgets") in done.stdout
