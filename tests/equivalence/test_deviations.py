"""docs/deviations.md against the code and the tests, and its rows about faults of the released code."""

import ast
import re
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nano import Squares, batch_of, hide, nano_config, nano_model, nano_run, random_frames, squares
from scipy.optimize import linear_sum_assignment
from torch.utils.flop_counter import FlopCounterMode

from cavis.config import CORRECTED, OURS, PAPER, DataRules, LossConfig, Reading
from cavis.data.clips import draw_frames
from cavis.losses.contrastive import track_contrast
from cavis.losses.criterion import SegmenterCriterion, TrackerCriterion
from cavis.losses.matching import match_first_appearance, on_grid
from cavis.model import build_model
from cavis.model.association import match
from cavis.model.context import ContextPooling, inner_boundary
from cavis.presets import DATA_SETS, PRESETS, get_preset
from cavis.records import LayerPrediction
from cavis.training.loop import train
from cavis.training.stages import TrackerStage

ROOT = Path(__file__).parents[2]
CONFIG = LossConfig(points=64)
VALUES = "paper · released · ours"
SWITCHES = [field.name for kind in (Reading, DataRules) for field in fields(kind)]


def tables() -> list[dict[str, str]]:
    """Every row of every table whose last column is ``test``, by column."""
    rows, columns = [], []
    for line in (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif columns[-1] == "test" and not set(line) <= set("|-: "):
            assert len(cells) == len(columns), line
            rows.append(dict(zip(columns, cells, strict=True)))
    return rows


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


ROWS = tables()


def seeded():
    return torch.Generator().manual_seed(3)


# --- the page -------------------------------------------------------------------------------------------------------


def test_every_row_names_a_test_of_its_own_that_is_there():
    defined = [
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    named = [name for row in ROWS for name in quoted(row["test"])]
    assert [row for row in ROWS if len(quoted(row["test"])) != 1] == []
    assert sorted(set(named)) == sorted(named)
    assert [name for name in named if not name.startswith("test_") or defined.count(name) != 1] == []


def test_no_row_has_an_empty_cell_and_no_name_comes_twice():
    assert len(ROWS) > 40
    assert [row for row in ROWS if not all(row.values())] == []
    names = [row["id"] for row in ROWS]
    assert sorted(set(names)) == sorted(names)


def test_every_switch_and_every_value_of_it_is_in_a_row():
    named: dict[str, set[str]] = {}
    for row in ROWS:
        if "switch" in row:
            name, *values = quoted(row["switch"])
            named.setdefault(name, set()).update(values, quoted(row.get(VALUES, "")))
    assert named.keys() == {*SWITCHES, "preset"}
    for name, kind in get_type_hints(Reading).items():
        assert set(map(str, get_args(kind))) <= named[name], name


@pytest.mark.parametrize("name", SWITCHES)
def test_the_values_in_the_table_are_those_of_the_readings(name):
    if name in vars(OURS):
        chosen = (PAPER, get_preset("ytvis19_r50").model.reading, OURS)  # the tracker's contrast is YouTube-VIS's
        values = [getattr(reading, name) for reading in chosen]
    else:
        released = any(getattr(data.rules, name) for data in DATA_SETS.values())
        values = [getattr(CORRECTED, name), released, getattr(get_preset("tiny").rules, name)]
    rows = [quoted(row[VALUES]) for row in ROWS if VALUES in row and quoted(row["switch"]) == [name]]
    written = [[str(value).lower() if isinstance(value, bool) else str(value) for value in values]]
    assert rows == written or (rows == [] and len(set(values)) == 1)  # an ablation's row has one value


# --- faults that are not mirrored -----------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_in_the_half_it_was_in(tmp_path, monkeypatch):
    told = []
    terms = TrackerStage.terms

    def spy(stage, batch, progress, generator):
        told.append(progress)
        return terms(stage, batch, progress, generator)

    monkeypatch.setattr(TrackerStage, "terms", spy)
    run = nano_run(tmp_path, "tracker", steps=6, workers=0)
    begun = train(run, nano_model(), Squares())
    assert len(list(islice(begun, 4))) == 4
    begun.close()
    assert len(list(train(run, nano_model(), Squares()))) == 2
    assert told == [step / 6 for step in range(6)]


def cosine_costs(reference, current):
    return 1 - F.normalize(reference[0], dim=-1, eps=0.0) @ F.normalize(current[0], dim=-1, eps=0.0).T


def test_a_slot_that_stays_broken_takes_nobodys_place():
    reference = torch.eye(4)[None] + 0.1
    current = reference + 0.1 * torch.randn(1, 4, 4, generator=seeded())
    right = [0, 1, 2, 3]
    assert linear_sum_assignment(cosine_costs(reference, current))[1].tolist() == right
    reference[0, 2] = current[0, 2] = torch.nan
    released = linear_sum_assignment(cosine_costs(reference, current).nan_to_num(0.0))[1]
    assert released[2] != 2  # what is not a number matches everybody best
    assert match(reference, current)[0].tolist() == right


def test_a_feature_of_zeros_does_not_stop_the_linking():
    reference = torch.eye(4)[None] + 0.1
    current = reference[:, [1, 2, 3, 0]].clone()
    current[0, 1] = 0  # what was slot 2
    with pytest.raises(ValueError, match="invalid"):
        linear_sum_assignment(cosine_costs(reference, current))
    assert match(reference, current)[0].tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("reading", [{}, {"tracker_contrast": True}, {"context": "none"}], ids=str)
def test_a_model_with_a_refiner_can_be_built_and_run(reading):
    model = nano_model(stage="refiner", **reading)
    frames = random_frames(frames=3, queries=8)
    if reading.get("context") == "none":
        frames = replace(frames, context_embedding=frames.core, context_aware=frames.core)
    with torch.no_grad():
        tracks, _ = model.track(frames)
        refined = model.refiner.predict(tracks, frames)
    assert refined.mask_logits.shape == tracks.mask_logits.shape
    assert torch.isfinite(refined.mask_logits).all()


def test_every_preset_without_context_is_a_model_of_core_features():
    names = [name for name in PRESETS if name.endswith("_minvis")]
    assert len(names) >= len(DATA_SETS)
    for name in names:
        reading = get_preset(name).model.reading
        model = build_model(replace(nano_config(), reading=reading), "segmenter").eval()
        assert model.segmenter.context_mlp is None, name
    with torch.no_grad():
        frames = model.segmenter(torch.zeros(1, 1, 3, 64, 64))
    assert torch.equal(frames.context_aware, frames.core)


def test_the_track_term_follows_the_matches_of_the_last_block():
    clip = squares()
    tracks, _ = nano_model().train().track(random_frames(frames=3, queries=8))
    last = LayerPrediction(tracks.class_logits, tracks.mask_logits)
    earlier = LayerPrediction(last.class_logits.flip(2), last.mask_logits.flip(2))  # found in other slots
    tracks = replace(tracks, auxiliary=(earlier,))
    criterion = TrackerCriterion(CONFIG, Reading(tracker_contrast=True), 3)
    terms = criterion(tracks, (clip.targets,), seeded())
    objects = on_grid((clip.targets,), tracks.mask_logits)
    slots = match_first_appearance(last, objects, CONFIG, seeded())[0][0]
    right, released = (track_contrast(tracks.references[0], chosen).loss for chosen in (slots, 7 - slots))
    torch.testing.assert_close(terms["track"], 2 * right)
    assert (right - released).abs() > 1e-2


def test_an_object_without_pixels_does_not_silence_the_others():
    clip = hide(squares(), *((2, t) for t in range(3)))
    others = replace(clip, targets=replace(clip.targets, **{k: v[:2] for k, v in vars(clip.targets).items()}))
    frames = nano_model().segmenter(batch_of(clip).frames)
    with_it, without = (SegmenterCriterion(CONFIG, OURS, 3)(frames, (one.targets,), seeded()) for one in (clip, others))
    assert with_it["prototype"] > 0
    for name in ("prototype", "prototype_cosine"):
        assert torch.equal(with_it[name], without[name])


@torch.no_grad()
def test_nothing_of_the_model_lives_outside_of_its_state():
    model = nano_model(stage="refiner", context="channel_sum")
    model(torch.zeros(1, 2, 3, 32, 32))
    stray = {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }
    assert stray == {}
    assert {x.device.type for x in (*model.to("meta").parameters(), *model.buffers())} == {"meta"}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["per_channel", "channel_sum", "learnable"])
def test_the_context_does_not_overflow_in_half_precision(kind):
    logits = torch.ones(1, 2, 40, 40)
    features = 50 + torch.rand(1, 64, 40, 40, generator=seeded())
    pool = ContextPooling(64, kind)
    whole = pool(logits, features)
    edge = inner_boundary(logits > 0).half()
    blurred = F.avg_pool2d(features.sum(dim=1, keepdim=True), 9, 1, 4).half()
    assert torch.einsum("bqhw,bxhw->bqx", edge, blurred).isinf().all()  # summed before it is divided
    with torch.autocast("cpu", torch.float16):
        torch.testing.assert_close(pool(logits, features.half()).float(), whole, rtol=2e-3, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["per_channel", "channel_sum"])
def test_the_context_costs_a_small_part_of_the_dense_filter(kind):
    logits, features = torch.randn(1, 20, 28, 50), torch.randn(1, 64, 28, 50)
    dense, counts = torch.full((64, 64, 9, 9), 1 / 81), []
    for pool in (ContextPooling(64, kind), lambda logits, features: F.conv2d(features, dense, padding=4)):
        with FlopCounterMode(display=False) as counter:
            pool(logits, features)
        counts.append(counter.get_total_flops())
    assert counts[1] == 2 * 81 * 64**2 * 28 * 50
    assert 0 < counts[0] < 0.01 * counts[1]


def test_neighbours_differ_where_the_video_has_enough_of_them():
    rng = np.random.default_rng(0)
    with_replacement = [(5, *rng.choice([3, 4, 6, 7], 2)) for _ in range(50)]
    assert any(len(set(frames)) < 3 for frames in with_replacement)
    assert all(len(set(draw_frames(11, 3, 2, rng))) == 3 for _ in range(200))
    assert draw_frames(1, 3, 2, rng) == [0, 0, 0]  # a video of one frame is a clip too
