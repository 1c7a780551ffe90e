"""What a run is fed with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from nano import batch_of, nano_model, nano_preset, squares
from PIL import Image

from cavis import rle
from cavis.categories import COCO, COCO_AS, LITE, TWINS, YTVIS21
from cavis.checkpoints.files import CheckpointError, ModelFile, write_model
from cavis.config import OURS
from cavis.data.loaders import StepBatches
from cavis.data.synthetic import TwinsConfig, synthesize
from cavis.losses.criterion import SegmenterCriterion
from cavis.model import build_model
from cavis.presets import lite, tiny
from cavis.training.start import clip_source, fresh_model, mixed

SIDE = 24


def album(root, names, also=()):
    """Pictures in COCO's form, each with one object of one of the categories; ``also`` are categories without any."""
    (root / "images").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[4:12, 6:20] = True
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate((*names, *also), 1)],
    }
    for i in range(1, len(names) + 1):
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE})
        content["annotations"].append(
            {"id": i, "image_id": i, "category_id": i, "iscrowd": 0, "area": 112, "bbox": [6, 4, 14, 8]}
            | {"segmentation": rle.to_json(rle.encode(mask))}
        )
        Image.new("RGB", (SIDE, SIDE), (9 * i, 50, 90)).save(root / "images" / f"{i}.png")
    (root / "instances.json").write_text(json.dumps(content))
    return str(root)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "twins"
    synthesize(folder, clips=2, seed=1, config=TwinsConfig(frames=3))
    return str(folder)


def draw(source, frames, seed=0):
    return source.draw(np.random.default_rng(seed), lambda length, rng: [min(t, length - 1) for t in range(frames)])


def test_videos_and_pictures_of_the_presets_categories_are_clips_alike(clips, tmp_path):
    moving = draw(clip_source(clips, tiny()), 3)
    still = draw(clip_source(album(tmp_path / "album", TWINS), tiny()), 3)
    assert len(moving.frames) == len(still.frames) == 3
    assert not moving.still
    assert still.still
    assert still.frames[0].equal(still.frames[2])
    assert len(still.targets.labels) == 1


def test_several_sources_are_drawn_from_equally(clips, tmp_path):
    source = mixed([clip_source(one, tiny()) for one in (clips, album(tmp_path / "album", TWINS))])
    still = sum(draw(source, 2, seed).still for seed in range(200))
    assert 70 < still < 130


def test_pictures_of_coco_train_a_video_preset_and_say_what_they_do_not_know(tmp_path):
    preset = replace(tiny(), model=replace(tiny().model, categories=YTVIS21))
    rest = [name for name in COCO if name not in ("skis", "dog")]
    source = clip_source(album(tmp_path / "coco", ("skis", "dog"), rest), preset)
    drawn = [draw(source, 2, seed) for seed in range(20)]
    labels = {YTVIS21[label] for clip in drawn for label in clip.targets.labels.tolist()}
    assert labels == {"snowboard", "dog"}
    unknown = {YTVIS21[label] for label in drawn[0].targets.unknown.tolist()}
    assert unknown == set(YTVIS21) - set(COCO_AS["ytvis21"].counterparts.values())
    batch = StepBatches(source, preset.segmenter, seed=0, num_classes=len(YTVIS21))[0]
    assert all(len(targets.unknown) for targets in batch.targets)


def test_lite_learns_pictures_of_coco_and_the_twins_world_under_its_own_names(tmp_path):
    preset = lite()
    shown = ("person", "cat", "dog", "kite")
    pictures = album(tmp_path / "coco", shown, [name for name in COCO if name not in shown])
    drawn = [draw(clip_source(pictures, preset), 2, seed) for seed in range(20)]
    assert {LITE[label] for clip in drawn for label in clip.targets.labels.tolist()} == {"person", "cat", "object"}
    assert all(len(clip.targets.unknown) == 0 for clip in drawn)
    for seed in range(4):
        plain, renamed = (draw(clip_source("twins", one), 1, seed).targets for one in (tiny(), preset))
        same = {"motorbike": "motorcycle"} | {name: name for name in ("person", "cat", "car")}
        assert [LITE[k] for k in renamed.labels] == [same.get(TWINS[k], "object") for k in plain.labels]
        assert renamed.masks.equal(plain.masks)
    batch = StepBatches(
        mixed([clip_source(one, preset) for one in (pictures, "twins")]),
        preset.segmenter,
        seed=0,
        num_classes=len(LITE),
    )[0]
    assert batch.frames.shape[:2] == (4, 2)


def test_sources_are_drawn_from_in_proportion_to_their_shares(clips, tmp_path):
    data = [clips, album(tmp_path / "album", TWINS)]
    source = mixed([clip_source(one, tiny()) for one in data], (3, 1))
    assert 30 < sum(draw(source, 2, seed).still for seed in range(200)) < 70
    with pytest.raises(ValueError, match="expected one weight for each of the sources, got 1 for 2"):
        mixed([clip_source(one, tiny()) for one in data], (1,))


def test_other_categories_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"expected the 20 categories of preset tiny in .*, got dog, kite"):
        clip_source(album(tmp_path / "album", ("dog", "kite")), tiny())


def test_unknown_labels_change_the_class_terms_and_nothing_else():
    model, clip, preset = nano_model(), squares(), nano_preset()
    criterion = SegmenterCriterion(preset.loss, preset.model.reading, preset.model.num_classes)

    def terms(unknown):
        batch = batch_of(replace(clip, targets=replace(clip.targets, unknown=unknown)))
        return criterion(model.segmenter(batch.frames), batch.targets, torch.Generator().manual_seed(0))

    with torch.no_grad():
        plain, partial = terms(torch.zeros(0, dtype=torch.int64)), terms(torch.arange(3))
    different = {name for name in plain if not plain[name].equal(partial[name])}
    assert different
    assert all(name.startswith("class") for name in different)


def test_a_model_of_other_categories_gives_a_segmenter_all_but_its_class_head(tmp_path):
    """As Mask2Former of COCO does, with which the paper begins; a later stage must go on with the same categories."""
    preset = nano_preset()
    other = replace(preset.model, categories=tuple("abcde"), reading=replace(OURS, context="none"))
    theirs = build_model(other, "segmenter")
    write_model(tmp_path / "a.safetensors", theirs.state_dict(), ModelFile("a", "nano", other, "segmenter", "", ()))
    fresh = fresh_model(preset, "segmenter", 3).state_dict()
    started = fresh_model(preset, "segmenter", 3, tmp_path / "a.safetensors").state_dict()
    own = {name for name in started if "class_head" in name or "context_" in name}
    assert len(own) >= 4
    for name, value in started.items():
        assert torch.equal(value, fresh[name] if name in own else theirs.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="class_head"):
        fresh_model(preset, "tracker", 3, tmp_path / "a.safetensors")
