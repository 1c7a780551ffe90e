"""Documents that list what is there."""

import re
from pathlib import Path

from cavis.checkpoints.files import read_model_file
from cavis.checkpoints.hub import find_model

ROOT = Path(__file__).parents[2]


def test_every_module_is_on_the_code_map():
    named = set(re.findall(r"`([a-z_]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    commands = ROOT / "cavis" / "cli"
    files = [file for folder in ("cavis", "widgets") for file in (ROOT / folder).rglob("*.py")]
    modules = {file.stem for file in files if commands not in file.parents}
    assert len(modules) > 100
    assert {name for name in modules - named if not name.startswith("__")} == set()


def test_the_model_card_counts_the_training_steps_that_the_file_tells_of():
    rows = re.findall(r"^\| (segmenter|tracker)[^|]*\| ([\d,]+)", (ROOT / "docs/model_card_lite.md").read_text(), re.M)
    steps = [int(number.replace(",", "")) for _, number in rows]
    training = read_model_file(find_model("lite"))[0].training
    told = [int(number.replace(",", "")) for number in re.findall(r"(?:segmenter|tracker) ([\d,]+) steps", training)]
    assert len(rows) == 3
    assert told == [sum(steps[:2]), steps[2]]
