"""Who imports whom, and what is not imported at all until it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "gradio", "pandas", "sklearn", "plotly", "av", "decord")


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layers_and_strangers():
    tool = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    assert "0 broken" in python(tool)


@pytest.mark.parametrize(
    "program",
    [
        "import cavis; cavis.__version__",
        "from typer.testing import CliRunner; from cavis.cli import app; r = CliRunner().invoke(app, ['--help']); "
        "assert r.exit_code == 0 and 'track' in r.output, r.output",
        "import cavis.presets; cavis.presets.tiny()",
    ],
    ids=["import cavis", "cavis --help", "presets"],
)
def test_light_things_import_nothing_heavy(program):
    loaded = python(f"import sys; {program}; print(*sorted(set(sys.modules) & set({HEAVY!r})))")
    assert loaded.split() == []


def test_reading_a_video_needs_no_torch():
    assert python("import sys, cavis.video; print('torch' in sys.modules)").strip() == "False"
