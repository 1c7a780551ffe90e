"""Arms of the ablations: one change each, a common start, results that are kept."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from cavis.checkpoints.configs import model_config_to_json
from cavis.presets import tiny
from cavis.training import ablations
from cavis.training.ablations import (
    ARMS,
    BASELINES,
    ArmResult,
    ClipScore,
    Plan,
    common_start,
    compare,
    find_result,
    read_results,
    run_arms,
    with_baselines,
    worth_of_companions,
    write_result,
)
from cavis.training.log import StepReport

PLAN = Plan(steps=1, clips=1, frames=4)


def result(arm: str, idf1, plan: Plan = PLAN, without=None) -> ArmResult:
    def rows(values):
        return tuple(ClipScore(0.5, v, 1, v, 0) for v in values)

    return ArmResult(arm, plan, rows(idf1), rows(idf1 if without is None else without))


def test_every_arm_differs_from_its_baseline_and_from_every_other_arm():
    base = tiny()
    plans = {name: (arm.stage, repr(arm.change(base))) for name, arm in ARMS.items()}
    assert all(ARMS[name].change(base) == base for name in BASELINES.values())
    assert len(set(plans.values())) == len(plans)


def test_each_arm_changes_one_thing_only_of_what_the_reading_or_the_losses_say():
    for arm in ARMS.values():
        changed = arm.change(tiny())
        flat = [
            {**model_config_to_json(preset.model)["reading"], **asdict(preset.loss), "frames": preset.segmenter.frames}
            for preset in (tiny(), changed)
        ]
        names = {key for key in flat[0] if flat[0][key] != flat[1][key]}
        allowed = {"context", "context_weight", "prototype_weight"}
        assert len(names) <= 1 or names <= allowed, arm.name
        assert replace(changed, model=tiny().model, loss=tiny().loss, segmenter=tiny().segmenter) == tiny()


@pytest.mark.parametrize("name", ["core query", "learnable filter", "no contrast", "filter 3"])
def test_an_arm_starts_from_the_baselines_weights_wherever_it_has_them(name):
    arm = ARMS[name]
    model, base = (common_start(preset, arm.stage, 0) for preset in (arm.change(tiny()), tiny()))
    own, theirs = model.state_dict(), base.state_dict()
    shared = own.keys() & theirs.keys()
    assert len(shared) > 0.9 * len(own)
    assert all(own[key].equal(theirs[key]) for key in shared)


def test_results_come_back_as_they_were_written_and_only_for_their_own_plan(tmp_path):
    mine = result("core query", [0.25, float("nan")])
    write_result(tmp_path, mine)
    found = find_result(tmp_path, "core query", PLAN)
    assert found.plan == PLAN
    assert np.array_equal(found.values("idf1"), [0.25, np.nan], equal_nan=True)
    assert find_result(tmp_path, "core query", replace(PLAN, seed=1)) is None
    write_result(tmp_path, result("tracker as it is", [0.5, 0.5], replace(PLAN, steps=9)))
    assert [one.arm for one in read_results(tmp_path)] == ["tracker as it is", "core query"]
    (tmp_path / "junk.json").write_text(json.dumps({"arm": "nothing"}))
    with pytest.raises(ValueError, match=r"junk\.json"):
        read_results(tmp_path)


def test_comparisons_are_paired_with_the_baseline_of_the_same_stage_and_plan():
    rng = np.random.default_rng(0)
    clips = rng.uniform(0.2, 0.9, 12)
    better = result("core query", clips + 0.01 + rng.normal(0, 1e-3, 12))
    results = [result("tracker as it is", clips), better, result("filter 3", clips - 1)]
    rows = compare(results, ("idf1", "switches"))
    assert {row.arm for row in rows} == {"core query"}
    assert rows[0].difference.mean == pytest.approx(0.01, abs=2e-3)
    assert [row.difference.verdict for row in rows] == ["more", "undecided"]
    other = result("tracker as it is", clips, replace(PLAN, steps=2))
    assert compare([other, better]) == []
    both = compare([*results, other, result("core query", clips + 0.1, other.plan)], ("idf1",))
    assert [(row.plan.steps, round(row.difference.mean, 1)) for row in both] == [(PLAN.steps, 0.0), (2, 0.1)]


def test_companions_are_worth_the_difference_they_make():
    assert worth_of_companions(result("core query", [0.5, 0.7], without=[0.4, 0.4])).mean == pytest.approx(0.2)


def test_unknown_arms_are_named_and_baselines_are_added_once():
    with pytest.raises(ValueError, match="got filter 4"):
        with_baselines(["filter 4"])
    chosen = [arm.name for arm in with_baselines(["core query", "filter 3", "filter 5"])]
    assert chosen == ["tracker as it is", "segmenter as it is", "core query", "filter 3", "filter 5"]


def test_an_arm_is_trained_measured_kept_and_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setitem(ablations.BASELINES, "tracker", "core query")
    steps = list(run_arms(["core query"], PLAN, tmp_path))
    notes = ["", ", measured 1 of 2 clips", ", measured 2 of 2 clips"]
    assert [(step.step, step.steps, step.note) for step in steps] == [
        (1, 1, f"arm 1 of 1: core query{note}") for note in notes
    ]
    kept = read_results(tmp_path)[0]
    assert len(kept.scores) == len(kept.without_companions) == 1
    assert list(run_arms(["core query"], PLAN, tmp_path)) == []


def test_what_goes_wrong_when_a_run_is_stopped_reaches_the_one_who_stops_it(tmp_path, monkeypatch):
    def no_room(*_):
        try:
            yield StepReport(1, 1, 1.0, {}, 1e-3, 1.0, 1.0)
        finally:
            raise OSError("no room for a checkpoint")

    monkeypatch.setattr(ablations, "train", no_room)
    steps = run_arms(["core query"], PLAN, tmp_path)
    next(steps)
    with pytest.raises(OSError, match="no room"):
        steps.close()


def test_steps_go_on_counting_where_an_arm_was_done_before(tmp_path):
    write_result(tmp_path, result("tracker as it is", [0.5]))
    steps = list(run_arms(["core query"], PLAN, tmp_path))
    assert [(step.step, step.steps) for step in steps] == [(2, 2)] * 3
    assert steps[0].note == "arm 2 of 2: core query"


def test_a_measurement_that_was_stopped_begins_anew_without_training(tmp_path, monkeypatch):
    monkeypatch.setitem(ablations.BASELINES, "tracker", "core query")
    whole = list(run_arms(["core query"], PLAN, tmp_path / "whole"))
    stopped = run_arms(["core query"], PLAN, tmp_path / "stopped")
    assert [next(stopped).note for _ in range(2)] == [step.note for step in whole[:2]]
    stopped.close()
    assert read_results(tmp_path / "stopped") == []
    again = list(run_arms(["core query"], PLAN, tmp_path / "stopped"))
    assert [step.note for step in again] == [step.note for step in whole[1:]]
    assert all(np.isnan(step.loss) for step in again)
    assert read_results(tmp_path / "stopped") == read_results(tmp_path / "whole")
