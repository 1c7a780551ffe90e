"""Other people's checkpoints become ours, whole or not at all."""

from dataclasses import replace

import pytest
import torch
from foreign_weights import released
from nano import images, nano_config, nano_model, nano_preset

from cavis import presets
from cavis.checkpoints.files import CheckpointError, read_model_file
from cavis.checkpoints.hub import load_model
from cavis.checkpoints.importing import import_checkpoint, plan_import, same_shapes, stage_of
from cavis.checkpoints.official import TABLES, naming_of, origin
from cavis.config import RELEASED, STAGES, Swin, VitAdapter
from cavis.model import build_model
from cavis.training.start import fresh_model


@pytest.fixture(autouse=True)
def nano(monkeypatch):
    """Small presets beside the real ones."""
    preset = nano_preset()
    other = replace(preset, name="nano_other", model=replace(preset.model, categories=("a", "b", "c", "d")))
    plain = replace(preset, name="nano_plain", model=replace(preset.model, reading=replace(RELEASED, context="none")))
    for one in (preset, other, plain):
        monkeypatch.setitem(presets.PRESETS, one.name, lambda one=one: one)


def outputs(model):
    with torch.no_grad():
        prediction, _ = model(images(1, 2))
    return prediction.class_logits, prediction.mask_logits


@pytest.mark.parametrize("stage", STAGES)
def test_a_released_checkpoint_gives_the_model_it_was_made_of(tmp_path, stage):
    model = nano_model(4, stage=stage)
    extras = {"optimizer": {"state": {}}, "scheduler": {}, "iteration": 7}
    torch.save({"model": released(model)} | extras, tmp_path / "theirs.pth")
    report = import_checkpoint(tmp_path / "theirs.pth", "nano", stage, tmp_path / "ours.safetensors")
    assert report.plan.missing == report.plan.unexplained == ()
    assert any("laplacian" in line and "a constant" in line for line in report.lines())
    ready = load_model(str(tmp_path / "ours.safetensors"), "cpu")
    assert ready.about.stage == stage
    for ours, theirs in zip(outputs(ready.model), outputs(model), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_entries_does_not_matter(tmp_path):
    state = released(nano_model(4))
    torch.save(dict(sorted(state.items(), key=lambda one: hash(one[0]))), tmp_path / "theirs.pth")
    import_checkpoint(tmp_path / "theirs.pth", "nano", "tracker", tmp_path / "ours.safetensors")
    _, ours = read_model_file(tmp_path / "ours.safetensors")
    own = nano_model(4).state_dict()
    for name, value in ours.items():
        assert torch.equal(value, own[name]), name


def refusal(tmp_path, state, preset="nano", stage="tracker") -> str:
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(tmp_path / "theirs.pth", preset, stage, tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]  # nothing half-imported
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_unexplained_entry_is_an_error(tmp_path):
    state = released(nano_model()) | {"tracker.surprise": torch.zeros(2)}
    assert "1 unexplained (tracker.surprise)" in refusal(tmp_path, state)


@pytest.mark.parametrize(
    "name",
    [
        "foo.criterion.bar",
        "criterion.foo",
        "junk.laplacian",
        "backbone.junk.mask_token",
        "norm.weight",
        "mask_token",
        "backbone.vit_module.mask_token",
        "backbone.vit_module.norm.weight",
        "backbone.layers.0.blocks.0.attn.relative_position_index",
        "junk.num_batches_tracked",
    ],
)
def test_only_what_stands_beside_its_owner_is_ignored(name):
    """What is idle in one kind of file, or in one model, is unexplained in another."""
    state = released(nano_model()) | {name: torch.zeros(2)}
    assert plan_import(state, nano_config(), "tracker").unexplained == (name,)


@pytest.mark.parametrize("name", ["tracker.surprise", "tracker.transformer_ffn_layers.9.norm.weight", "refiner.x"])
def test_only_what_a_later_stage_would_use_is_taken_for_its_own(name):
    state = released(nano_model(stage="refiner")) | {name: torch.zeros(2)}
    plan = plan_import(state, nano_config(), "segmenter")
    assert plan.unexplained == (name,)
    assert sum(reason == "of a later stage" for _, reason in plan.ignored) > 50


def test_another_laplacian_is_refused(tmp_path):
    """Boundaries would be others: a mask's outside, or of the four neighbours only."""
    for values in ([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], [[1, 1, 1], [1, -8, 1], [1, 1, 1]]):
        state = released(nano_model()) | {"sem_seg_head.predictor.laplacian": torch.tensor([[values]]).float()}
        assert "expected sem_seg_head.predictor.laplacian of" in refusal(tmp_path, state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    state = released(nano_model())
    state["tracker.ctx_query_embed.bias"][3] = value
    assert "1 entries are not (tracker.ctx_query_embed.bias)" in refusal(tmp_path, state)


def test_a_missing_entry_is_an_error(tmp_path):
    state = released(nano_model())
    del state["tracker.ctx_query_embed.bias"]
    assert "1 missing (tracker.fusion.bias)" in refusal(tmp_path, state)


def test_a_checkpoint_of_another_data_set_names_the_preset_that_fits(tmp_path):
    text = refusal(tmp_path, released(nano_model()), preset="nano_other")
    assert "sem_seg_head.predictor.class_embed.weight is (4, 32), expected (5, 32)" in text
    assert "--preset nano --stage tracker would fit" in text
    assert "missing" not in text  # what is there in another shape is not missing too


def test_the_paper_reading_is_not_advised_where_the_released_one_fits(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "nano_paper", nano_preset)
    assert refusal(tmp_path, released(nano_model()), preset="nano_other").endswith(
        "--preset nano --stage tracker would fit"
    )


def test_classes_that_are_as_many_but_not_the_same_are_said_not_to_be_told_apart(tmp_path, monkeypatch):
    """As YouTube-VIS 2019 and 2021."""
    assert same_shapes("ytvis19_r50") == ("ytvis21_r50",)
    assert same_shapes("ovis_vitl") == same_shapes("coco_r50") == ()
    preset = replace(nano_preset(), name="nano_twin")
    twin = replace(preset, model=replace(preset.model, categories=("x", "y", "z")))
    monkeypatch.setitem(presets.PRESETS, "nano_twin", lambda: twin)
    text = refusal(tmp_path, released(nano_model()), preset="nano_other")
    assert "--preset nano or nano_twin --stage tracker would fit (their classes are as many, but not the same" in text
    report = import_checkpoint(tmp_path / "theirs.pth", "nano", "tracker", tmp_path / "ours.safetensors")
    assert any(line.startswith("checkpoints of nano_twin look the same") for line in report.lines())


def test_the_listing_names_every_entry_of_the_file_and_of_the_model(tmp_path):
    state = released(nano_model(stage="refiner"))
    torch.save(state, tmp_path / "theirs.pth")
    report = import_checkpoint(tmp_path / "theirs.pth", "nano", "segmenter", tmp_path / "ours.safetensors")
    words = [line.replace(":", "").split() for line in report.listing()]
    assert {word[1] for word in words if word[0] in ("used", "ignored")} == state.keys()
    assert {word[3] for word in words if word[0] == "used"} == nano_model(stage="segmenter").state_dict().keys()


def test_a_checkpoint_of_an_earlier_stage_names_its_stage(tmp_path):
    text = refusal(tmp_path, released(nano_model(stage="segmenter")), stage="tracker")
    assert "--preset nano --stage segmenter would fit" in text


def test_a_checkpoint_of_another_backbone_names_the_preset_that_fits(tmp_path, monkeypatch):
    config = replace(nano_config(), backbone=Swin(width=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4))
    swin = replace(nano_preset(), name="nano_swin", model=config)
    monkeypatch.setitem(presets.PRESETS, "nano_swin", lambda: swin)
    text = refusal(tmp_path, released(build_model(config, "segmenter")), stage="segmenter")
    assert "--preset nano_swin --stage segmenter would fit" in text


def test_names_of_nobody_are_refused(tmp_path):
    assert "other names, such as layer1.weight" in refusal(tmp_path, {"layer1.weight": torch.zeros(2)})


def test_later_stages_are_left_out_with_the_reason(tmp_path):
    torch.save(released(nano_model(4, stage="refiner")), tmp_path / "theirs.pth")
    report = import_checkpoint(tmp_path / "theirs.pth", "nano", "segmenter", tmp_path / "ours.safetensors")
    later = [key for key, reason in report.plan.ignored if reason == "of a later stage"]
    assert later
    assert all(key.startswith(("tracker.", "refiner.")) for key in later)
    assert load_model(str(tmp_path / "ours.safetensors"), "cpu").about.stage == "segmenter"


def test_a_starting_point_keeps_what_fits_and_says_what_is_missing(tmp_path):
    """Mask2Former of another data set, without context: classes and context are to be learned."""
    state = released(build_model(replace(presets.get_preset("nano_plain").model, categories=("a",) * 9), "segmenter"))
    torch.save(state, tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    report = import_checkpoint(tmp_path / "theirs.pth", "nano", "segmenter", out, partial=True)
    assert any("class_embed.weight: of another shape" in line for line in report.lines())
    assert "segmenter.query_decoder.heads.class_head.weight" in report.plan.missing
    assert "segmenter.context_mlp.layers.0.weight" in report.plan.missing
    with pytest.raises(CheckpointError, match="a starting point for training"):
        load_model(str(out), "cpu")
    fresh = fresh_model(presets.get_preset("nano"), "segmenter", 3)
    started = fresh_model(presets.get_preset("nano"), "segmenter", 3, out)
    for name, value in started.state_dict().items():
        if name in report.plan.missing:
            assert torch.equal(value, fresh.state_dict()[name]), name
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(value, state[origin(name, "released").key]) or "attention" in name, name


@pytest.fixture
def dinov2(monkeypatch):
    """DINOv2's file for a small adapter, whose preset is ``nano_vit``."""
    config = replace(nano_config(), backbone=VitAdapter(width=32, depth=4, heads=2, adapter_heads=2))
    preset = replace(nano_preset(), name="nano_vit", model=config)
    monkeypatch.setitem(presets.PRESETS, "nano_vit", lambda: preset)
    whole = released(build_model(config, "segmenter"))
    prefix = "backbone.vit_module."
    state = {key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}
    for extra in ("mask_token", "norm.weight", "norm.bias"):
        state[extra] = torch.zeros(32)
    state["patch_embed.proj.weight"] = torch.randn(32, 3, 14, 14)
    return state


def test_dinov2_becomes_the_frozen_part_of_the_adapter(tmp_path, dinov2):
    corners = torch.randn(32, 3, 2, 2)

    def surface(side):  # bilinear between the corners, so that every size samples the same function
        ramp = torch.linspace(0, 1, side)
        ends = torch.stack((1 - ramp, ramp))
        return torch.einsum("kclm,ly,mx->kcyx", corners, ends, ends)

    dinov2["patch_embed.proj.weight"] = surface(14)
    torch.save(dinov2, tmp_path / "dinov2.pth")
    report = import_checkpoint(tmp_path / "dinov2.pth", "nano_vit", "segmenter", tmp_path / "vit.safetensors")
    assert not any("vit." in name for name in report.plan.missing)
    assert "segmenter.backbone.extractors.0.query_norm.weight" in report.plan.missing
    _, ours = read_model_file(tmp_path / "vit.safetensors")
    kernel = ours["segmenter.backbone.vit.patches.weight"]
    torch.testing.assert_close(kernel, surface(16))


def test_a_vit_starts_with_dinov2_alone_or_with_all_that_coco_taught_but_classes_and_context(tmp_path, dinov2):
    """As the paper says, or as the released models did; one import serves the data sets of all presets."""
    preset = presets.get_preset("nano_vit")
    other = replace(preset, model=replace(preset.model, categories=("a", "b", "c", "d")))
    taught = replace(preset.model, categories=("x",) * 9, reading=replace(RELEASED, context="none"))
    coco = moved(build_model(taught, "segmenter"))
    kept = {}
    for name, state in (("dinov2", dinov2), ("coco", released(coco))):
        torch.save(state, tmp_path / f"{name}.pth")
        out = tmp_path / f"{name}.safetensors"
        import_checkpoint(tmp_path / f"{name}.pth", "nano_vit", "segmenter", out, partial=name == "coco")
        for plan in (preset, other):
            fresh, started = (fresh_model(plan, "segmenter", 3, start).state_dict() for start in (None, out))
            kept[name] = {key for key, value in started.items() if not torch.equal(value, fresh[key])}
            if name == "coco":
                new = {key for key in started if "context_mlp" in key or "class_head" in key}
                assert kept[name] == started.keys() - new
            else:
                assert {key.startswith("segmenter.backbone.vit.") for key in kept[name]} == {True}
    assert kept["dinov2"] < kept["coco"]


def moved(model):
    """The model with every entry moved, so that none is what a fresh one begins with."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value += 1
    return model


def cut_short(state):
    for key in [key for key in state if key.startswith("blocks.3.")]:
        del state[key]


def with_registers(state):
    state["register_tokens"] = torch.zeros(1, 4, 32)


def with_a_flat_kernel(state):
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]


def with_an_oblong_kernel(state):
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][..., :7]


def with_other_positions(state):
    state["pos_embed"] = state["pos_embed"][:, :100]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_short, "missing (segmenter.backbone.vit.blocks.3."),
        (with_registers, "1 unexplained (register_tokens)"),
        (with_a_flat_kernel, "patch_embed.proj.weight is (32, 3, 14), expected (32, 3, 16, 16)"),
        (with_an_oblong_kernel, "patch_embed.proj.weight is (32, 3, 14, 7), expected (32, 3, 16, 16)"),
        (with_other_positions, "pos_embed is (1, 100, 32)"),
    ],
)
def test_a_damaged_dinov2_is_refused_and_taken_in_parts_only_when_asked(tmp_path, dinov2, change, words):
    change(dinov2)
    text = refusal(tmp_path, dinov2, preset="nano_vit", stage="segmenter")
    assert words in text
    assert "extractors" not in text  # what DINOv2 never has is no fault of the file
    out = tmp_path / "ours.safetensors"
    assert import_checkpoint(tmp_path / "theirs.pth", "nano_vit", "segmenter", out, partial=True).plan.pieces


def test_dinov2_in_the_wrong_place_is_told_the_right_one(tmp_path, dinov2):
    assert "expected --stage segmenter" in refusal(tmp_path, dinov2, preset="nano_vit", stage="tracker")
    text = refusal(tmp_path, dinov2, preset="nano", stage="segmenter")
    assert text.endswith("--preset nano_vit --stage segmenter would fit")


def test_the_stage_of_a_checkpoint_is_seen_from_its_names():
    for stage in STAGES:
        assert stage_of(released(nano_model(stage=stage))) == stage


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_fractions_are_refused(tmp_path, dtype):
    """A quantized checkpoint means nothing without its scales."""
    state = released(nano_model())
    state["tracker.ctx_query_embed.bias"] = state["tracker.ctx_query_embed.bias"].to(dtype)
    name = str(dtype).removeprefix("torch.")
    assert f"tracker.ctx_query_embed.bias is {name}, expected floating point" in refusal(tmp_path, state)


@pytest.mark.parametrize("turned", [False, True])
def test_an_entry_that_is_there_under_two_names_is_an_error_in_every_order(tmp_path, turned):
    state = released(nano_model())
    older = "sem_seg_head.predictor.static_query.weight"
    state[older] = state["sem_seg_head.predictor.query_feat.weight"] + 1
    entries = list(state.items())
    assert f"1 unexplained ({older})" in refusal(tmp_path, dict(entries[::-1] if turned else entries))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_stay_in_half_precision(tmp_path, dtype):
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in released(nano_model()).items()
    }
    torch.save(state, tmp_path / "theirs.pth")
    import_checkpoint(tmp_path / "theirs.pth", "nano", "tracker", tmp_path / "ours.safetensors")
    _, ours = read_model_file(tmp_path / "ours.safetensors")
    assert {value.dtype for value in ours.values() if value.is_floating_point()} == {dtype}
    parameters = load_model(str(tmp_path / "ours.safetensors"), "cpu").model.parameters()
    assert {value.dtype for value in parameters} == {torch.float32}


def test_no_name_of_ours_has_two_rows_in_the_table():
    for naming in TABLES:
        ours = [row.ours for row in TABLES[naming]]
        assert len(ours) == len(set(ours)), naming


def test_all_names_of_a_prefix_of_parallel_training_are_known():
    state = {f"module.{key}": value for key, value in released(nano_model()).items()}
    assert naming_of(state) == "released"
    plan = plan_import(state, nano_config(), "tracker")
    assert plan.missing == plan.unexplained == plan.misfits == ()
