import json
import math
from dataclasses import replace

import pytest

from cavis.training.log import StepReport, TrainingLog, read_log


def report(step):
    return StepReport(
        step=step, steps=9, loss=1.5, terms={"class": 1.5}, learning_rate=1e-4, gradient_norm=2.0, seconds=0.1
    )


def test_what_is_written_is_read(tmp_path):
    with TrainingLog(tmp_path / "log.jsonl") as log:
        for step in (1, 2):
            log.write(report(step))
            assert read_log(tmp_path / "log.jsonl")[-1]["step"] == step  # not only when closed
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0] == vars(report(1))


def test_a_resumed_log_forgets_the_steps_that_are_done_again(tmp_path):
    path = tmp_path / "log.jsonl"
    with TrainingLog(path) as log:
        for step in range(1, 6):
            log.write(report(step))
    with TrainingLog(path, start=3) as log:
        log.write(report(4))
    assert [line["step"] for line in read_log(path)] == [1, 2, 3, 4]


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(vars(report(1))) + "\n" + json.dumps(vars(report(2)))[:20])
    assert [line["step"] for line in read_log(path)] == [1]
    with TrainingLog(path, start=1) as log:
        log.write(report(2))
    assert [line["step"] for line in read_log(path)] == [1, 2]


def test_a_log_that_cannot_be_rewritten_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    with TrainingLog(path) as log:
        log.write(report(1))
    before = path.read_text()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    try:
        TrainingLog(path, start=1)
    except OSError:
        assert path.read_text() == before
    else:
        raise AssertionError("expected the failure to be told")
    assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_log_is_valid_json_whatever_the_gradient_and_reads_as_a_number(tmp_path, norm):
    def refuse(name):
        raise AssertionError(f"expected JSON, got {name}")

    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(vars(report(1)) | {"gradient_norm": norm}) + "\n")  # as it was written before
    with TrainingLog(path, start=1) as log:
        log.write(replace(report(2), gradient_norm=norm, terms={"class": 1.5, "mask": norm}))
        log.write(report(3))
    with TrainingLog(path, start=3):
        pass
    lines = [json.loads(text, parse_constant=refuse) for text in path.read_text().splitlines()]
    assert [line["gradient_norm"] for line in lines] == [None, None, 2.0]
    assert lines[1]["terms"] == {"class": 1.5, "mask": None}
    read = read_log(path)
    assert [math.isnan(line["gradient_norm"]) for line in read] == [True, True, False]
    assert math.isnan(read[1]["terms"]["mask"])
