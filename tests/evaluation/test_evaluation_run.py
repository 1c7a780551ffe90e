import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cavis import rle
from cavis.data.ytvis_json import open_ytvis
from cavis.evaluation.run import (
    evaluate,
    evaluate_results,
    ground_truth,
    match_categories,
    metrics_json,
    predictions_from_json,
    read_results,
    results_json,
)
from cavis.records import Track, VideoResult

HEIGHT, WIDTH, FRAMES = 10, 14, 3
NAMES = {4: "Giant_panda", 2: "dog", 9: "cat"}


def masks_of(place):
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), dtype=bool)
    for t in range(FRAMES):
        masks[t, place : place + 4, place + t : place + t + 5] = True
    return tuple(rle.encode(mask) for mask in masks)


@pytest.fixture
def dataset(tmp_path):
    """Two videos with two objects each."""
    videos, annotations = [], []
    for video in (1, 2):
        names = [f"v{video}/{t}.jpg" for t in range(FRAMES)]
        videos.append({"id": video, "height": HEIGHT, "width": WIDTH, "file_names": names})
        for place, category in ((0, 4), (5, 2)):
            masks = masks_of(place)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": video,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentations": [rle.to_json(mask) for mask in masks],
                    "bboxes": [rle.box(mask) for mask in masks],
                    "areas": [rle.area(mask) for mask in masks],
                }
            )
        for name in names:
            path = tmp_path / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    content = {"videos": videos, "annotations": annotations}
    content["categories"] = [{"id": id_, "name": name} for id_, name in NAMES.items()]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return open_ytvis(tmp_path)


def track(id_, class_scores, place):
    zeros = np.zeros((FRAMES, 2))
    return Track(id_, np.array(class_scores), masks_of(place), np.zeros((FRAMES, 4)), zeros, zeros)


def perfect(source, categories=("dog", "giant panda")):
    tracks = (track(1, [0.1, 0.9], 0), track(2, [0.8, 0.2], 5))
    return VideoResult(tracks, source.height, source.width, source.timestamps, categories, "made up")


def test_a_perfect_predictor_reaches_one(dataset):
    done = []
    evaluation = evaluate(dataset, perfect, progress=done.append)
    assert evaluation.metrics.ap == pytest.approx(1.0)
    assert done == [1, 2]
    assert evaluation.unmatched == ()
    assert [(row.name, row.ap) for row in evaluation.per_category] == [
        ("dog", pytest.approx(1.0)),
        ("Giant_panda", pytest.approx(1.0)),
        ("cat", -1.0),
    ]


def test_the_predictor_gets_the_frames_of_each_video(dataset):
    seen = []
    evaluate(dataset, lambda source: seen.append(np.stack(list(source)).shape) or perfect(source))
    assert seen == [(FRAMES, HEIGHT, WIDTH, 3)] * 2


def test_swapped_labels_reach_nothing(dataset):
    swapped = evaluate(dataset, lambda source: perfect(source, ("giant panda", "dog")), top_k=2)
    assert swapped.metrics.ap == 0.0


def test_only_the_best_predictions_count(dataset):
    evaluation = evaluate(dataset, perfect, top_k=1)
    assert [(one.category_id, one.score) for one in evaluation.predictions] == [(4, 0.9), (4, 0.9)]


def test_categories_the_data_set_does_not_know_are_dropped_and_reported(dataset):
    evaluation = evaluate(dataset, lambda source: perfect(source, ("dog", "unicorn")), top_k=1)
    assert evaluation.unmatched == ("unicorn",)
    # They do not take the place of those that can be measured.
    assert [(one.category_id, one.score) for one in evaluation.predictions] == [(2, 0.8), (2, 0.8)]


def partly(dataset, *known):
    """The same, but in the first video nobody looked for other categories than these."""
    return replace(dataset, videos=(replace(dataset.videos[0], known=known), *dataset.videos[1:]))


def test_what_nobody_looked_for_counts_neither_for_nor_against(dataset):
    def sees_too_much(source):
        result = perfect(source)
        return replace(result, tracks=(*result.tracks, track(3, [0.0, 0.95], 3)))  # a panda that is not annotated

    everywhere, nowhere = evaluate(dataset, sees_too_much), evaluate(partly(dataset, 2), sees_too_much)
    pandas = {row.name: row.ap for row in everywhere.per_category}["Giant_panda"]
    assert pandas < 0.9
    without = [one for one in everywhere.predictions if (one.video_id, one.category_id) != (1, 4)]
    blind = tuple(one for one in dataset.videos[0].annotations if one.category_id != 4)
    removed = replace(dataset, videos=(replace(dataset.videos[0], annotations=blind), dataset.videos[1]))
    assert nowhere.predictions == tuple(without)
    assert metrics_json(nowhere.metrics) == metrics_json(evaluate_results(removed, without))
    assert metrics_json(evaluate_results(partly(dataset, 2), everywhere.predictions)) == metrics_json(nowhere.metrics)
    assert [(one.video_id, one.category_id) for one in ground_truth(partly(dataset, 2))] == [(1, 2), (2, 4), (2, 2)]


def test_what_nobody_looked_for_takes_no_place_among_the_best(dataset):
    evaluation = evaluate(partly(dataset, 2), perfect, top_k=1)
    assert [(one.video_id, one.category_id) for one in evaluation.predictions] == [(1, 2), (2, 4)]


def test_what_was_looked_for_is_read_from_the_file(dataset):
    content = json.loads(dataset.path.read_text())
    content["videos"][0]["labelled_categories"] = ["dog", "cat"]
    content["videos"][1]["labelled_categories"] = "all"
    dataset.path.write_text(json.dumps(content))
    read = open_ytvis(dataset.path)
    assert [video.known for video in read.videos] == [(2, 9), None]
    assert read.clip(0, [0]).targets.unknown.tolist() == [1]  # the panda's label
    assert read.clip(1, [0]).targets.unknown.tolist() == []


def test_names_match_whatever_their_capitals_and_underscores():
    assert match_categories(("giant panda", "Dog", "giant-Panda", "cow"), NAMES) == (4, 2, 4, None)


def test_results_of_another_length_or_size_are_refused(dataset):
    def short(source):
        return replace(perfect(source), timestamps=np.zeros(2))

    with pytest.raises(ValueError, match="video 1: expected a result of 3 frames, got 2"):
        evaluate(dataset, short)
    with pytest.raises(ValueError, match="video 1: expected masks of 10 x 14 pixels, got 9 x 14"):
        evaluate(dataset, lambda source: replace(perfect(source), height=9))


def test_results_file_gives_the_same_metrics(dataset, tmp_path):
    evaluation = evaluate(dataset, perfect)
    (tmp_path / "results.json").write_text(json.dumps(results_json(evaluation.predictions)))
    read = read_results(tmp_path / "results.json", dataset)
    assert tuple(read) == evaluation.predictions
    assert metrics_json(evaluate_results(dataset, read)) == metrics_json(evaluation.metrics)


def test_without_annotations_there_are_results_but_no_metrics(dataset):
    hidden = replace(dataset, annotated=False)
    evaluation = evaluate(hidden, perfect)
    assert evaluation.metrics is None
    assert evaluation.per_category == ()
    assert len(evaluation.predictions) == 8
    with pytest.raises(ValueError, match="expected a data set with annotations"):
        evaluate_results(hidden, evaluation.predictions)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a list of predictions, got dict"),
        ([{"video_id": 8}], "prediction 0: expected a video of the data set, got video 8"),
        ([{"video_id": 1, "segmentations": [None]}], "prediction 0: expected segmentations for 3 frames, got 1"),
        ([{"video_id": 1, "segmentations": [None] * 3}], "prediction 0: an entry has no 'category_id'"),
        ([7], "prediction 0: expected a record with named fields, got 7"),
        ([{"video_id": [1]}], "prediction 0: expected a whole number as video_id, got a list"),
        ([{"video_id": 1, "segmentations": None}], "prediction 0: expected a list as segmentations, got null"),
    ],
)
def test_results_that_do_not_fit_are_refused_in_words(dataset, tmp_path, entries, message):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / "results.json", dataset)


SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "expected polygons as lists x, y, x, y"),
        ([[1, 2, 3, 4]], "expected polygons as lists x, y, x, y"),
        (["x"], "expected polygons as lists x, y, x, y"),
        ("x", "expected a run-length mask or polygons, got str"),
        ({"size": SIZE, "counts": [-5, 145]}, "expected run lengths that are whole numbers of at least 0"),
        ({"size": SIZE, "counts": ["a"]}, "expected run lengths that are whole numbers of at least 0"),
        ({"size": SIZE, "counts": [70.5, 69.5]}, "expected run lengths that are whole numbers of at least 0"),
        ({"size": SIZE, "counts": [10, 20]}, "expected run lengths that add up to 140, got 30"),
        ({"size": SIZE, "counts": "0"}, "expected run lengths that add up to 140, got 0"),
        ({"size": SIZE, "counts": None}, "expected run lengths as a list or as ASCII text"),
        ({"size": 10, "counts": "abc"}, "expected a mask of 10 x 14, got 10"),
        ({"size": [9, 14], "counts": [126]}, "expected a mask of 10 x 14, got 9 x 14"),
    ],
)
def test_masks_that_are_none_are_refused_with_their_entry_and_frame(dataset, tmp_path, segmentation, message):
    good = {"video_id": 1, "category_id": 2, "score": 1, "segmentations": [None] * FRAMES}
    assert predictions_from_json([good], dataset, "r")[0].score == 1.0
    (tmp_path / "results.json").write_text(json.dumps([good, good | {"segmentations": [None, segmentation, None]}]))
    with pytest.raises(ValueError, match=rf"results\.json: prediction 1: frame 1: {message}"):
        read_results(tmp_path / "results.json", dataset)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999", f"1{'0' * 400}", "null", '"0.5"', "true"])
def test_a_score_that_is_no_finite_number_is_refused(dataset, tmp_path, score):
    entry = f'{{"video_id": 1, "category_id": 2, "score": {score}, "segmentations": [null, null, null]}}'
    (tmp_path / "results.json").write_text(f"[{entry}]")
    with pytest.raises(ValueError, match="prediction 0: expected a finite number as score, got"):
        read_results(tmp_path / "results.json", dataset)


def test_metrics_json_has_the_headline_fractions(dataset):
    metrics = metrics_json(evaluate(dataset, perfect).metrics)
    assert list(metrics) == ["AP", "AP50", "AP75", "AR1", "AR10"]
    assert all(0 <= value <= 1 for value in metrics.values())


def test_ground_truth_has_every_annotated_track(dataset):
    tracks = ground_truth(dataset)
    assert [(one.video_id, one.category_id, one.area) for one in tracks] == [
        (1, 4, 20.0),
        (1, 2, 20.0),
        (2, 4, 20.0),
        (2, 2, 20.0),
    ]
