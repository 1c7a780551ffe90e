"""``cavis data check`` as a user types it."""

import json
import subprocess
import sys

import pytest

from cavis.data.synthetic import TwinsConfig, synthesize


def check(*arguments):
    command = [sys.executable, "-m", "cavis", "data", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def clips(tmp_path):
    synthesize(tmp_path / "clips", clips=2, seed=1, config=TwinsConfig(frames=3))
    return tmp_path / "clips"


def test_a_sound_data_set_is_counted_and_passes(clips):
    done = check(clips)
    assert done.returncode == 0, done.stderr
    assert "ytvis, 2 videos, 6 frames" in done.stdout
    assert done.stdout.splitlines()[-1] == "faults: 0; oddities that do no harm: 0"


def test_every_fault_is_named_and_fails(clips):
    content = json.loads((clips / "annotations.json").read_text())
    content["annotations"][0]["category_id"] = 999
    (clips / "annotations.json").write_text(json.dumps(content))
    (clips / "JPEGImages" / content["videos"][1]["file_names"][2]).unlink()
    done = check(clips)
    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert len(faults) == 2
    assert "999" in faults[0]
    assert content["videos"][1]["file_names"][2] in faults[1]


def test_what_is_no_data_set_is_said(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 1
    assert "no data set" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
