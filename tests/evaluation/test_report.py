import base64
import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cavis import rle
from cavis.data.ytvis_json import open_ytvis
from cavis.evaluation.average_precision import PredictedTrack
from cavis.evaluation.coverage import coverage
from cavis.evaluation.report import ReportStyle, write_report
from cavis.evaluation.report_clips import worst_clips
from cavis.evaluation.run import Evaluation, evaluate_results, ground_truth, measure
from cavis.evaluation.tracking import tracking_metrics

HEIGHT, WIDTH, FRAMES = 24, 40, 3
NAMES = {1: "dog", 2: "<b>cat</b>", 3: "unseen"}


def block(x):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:15, x : x + 10] = True
    return rle.encode(mask)


@pytest.fixture(params=[True, False], ids=["frames", "no frames"])
def world(tmp_path, request):
    """Three videos; the first is found, the second missed, the third has nothing in it."""
    videos, annotations = [], []
    for video in (1, 2, 3):
        names = [f"v{video}/{t}.png" for t in range(FRAMES)]
        videos.append({"id": video, "height": HEIGHT, "width": WIDTH, "file_names": names})
        for name in names if request.param else ():
            path = tmp_path / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT), (200, 10, 10)).save(path)
    for video in (1, 2):
        masks = [rle.to_json(block(4))] * FRAMES
        annotations.append({"id": video, "video_id": video, "category_id": video, "segmentations": masks})
    content = {"videos": videos, "annotations": annotations}
    content["categories"] = [{"id": id_, "name": name} for id_, name in NAMES.items()]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    dataset = open_ytvis(tmp_path)
    predictions = (
        PredictedTrack(1, 1, 0.9, (block(4),) * FRAMES),
        PredictedTrack(2, 2, 0.8, (block(25), None, block(25))),
        PredictedTrack(2, 2, 0.1, (block(4),) * FRAMES),
    )
    evaluation = Evaluation(evaluate_results(dataset, predictions), predictions, ("robot & co",))
    return dataset, evaluation


class Page(HTMLParser):
    """Tables as rows of text, headings, and pictures by what they show."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.headings, self.pictures, self._open = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h3":
            self.headings.append("")
        if tag == "img":
            values = dict(attributes)
            data = base64.b64decode(values["src"].removeprefix("data:image/png;base64,"))
            self.pictures[values["alt"]] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def handle_data(self, data):
        if self._open[-1:] and self._open[-1] in ("td", "th") and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")
        if self._open[-1:] == ["h3"]:
            self.headings[-1] += data


def test_page_and_table_hold_the_numbers_of_the_evaluation(world, tmp_path):
    dataset, evaluation = world
    tracking = tracking_metrics(ground_truth(dataset), evaluation.predictions, dataset.categories)
    covered = coverage(ground_truth(dataset), evaluation.predictions, dataset.categories)
    files = write_report(tmp_path / "a" / "report", dataset, evaluation, covered, tracking)
    with files.table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == list(NAMES.values())
    per_category = (evaluation.per_category, covered.per_category, tracking.per_category)
    for row, one, cover, followed in zip(rows, *per_category, strict=True):
        assert row["ap"] == ("" if one.ap == -1 else f"{one.ap:.4f}")
        for name in ("abo", "abo_small", "abo_medium", "abo_large"):
            assert row[name] == ("" if (value := getattr(cover, name)) == -1 else f"{value:.4f}")
        assert row["hota"] == (f"{followed.scores.hota:.4f}" if followed.objects else "")
        assert row["identity_switches"] == (str(followed.scores.identity_switches) if followed.objects else "")
    page = Page(files.page.read_text(encoding="utf-8"))
    assert ["ap", f"{evaluation.metrics.ap:.4f}"] in page.rows
    assert ["recall50", f"{covered.recall50:.4f}"] in page.rows
    assert ["hota", f"{tracking.combined.hota:.4f}"] in page.rows
    assert [list(row.values()) for row in rows] == page.rows[-len(rows) :]


def test_the_page_needs_no_other_file_and_believes_no_name(world, tmp_path):
    text = write_report(tmp_path / "r", *world).page.read_text(encoding="utf-8")
    assert "<b>cat" not in text
    assert "&lt;b&gt;cat" in text
    assert "robot &amp; co" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|<script|@import|url\(""", text)
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"report.html", "categories.csv"}


def test_the_worst_clips_come_first_and_empty_ones_not_at_all(world, tmp_path):
    page = Page(write_report(tmp_path / "r", *world).page.read_text(encoding="utf-8"))
    assert [heading.split(":")[0] for heading in page.headings] == ["v2 (video 2)", "v1 (video 1)"]
    one = Page(write_report(tmp_path / "r", *world, style=ReportStyle(clips=1)).page.read_text(encoding="utf-8"))
    assert len(one.headings) == 1
    none = write_report(tmp_path / "r", *world, style=ReportStyle(clips=0)).page.read_text(encoding="utf-8")
    assert "<img" not in none


def test_clips_are_rated_by_what_was_looked_for_in_them_as_the_headline_is(world):
    dataset, evaluation = world
    blind = replace(dataset, videos=tuple(replace(video, known=(1,)) for video in dataset.videos))
    measured = measure(blind, evaluation.predictions)
    clips = worst_clips(blind, measured.predictions, clips=5, frames=1, min_score=0.3)
    assert [(clip.video_id, clip.objects) for clip in clips] == [(1, 1)]  # the cat of the second was not looked for
    assert clips[0].ap == pytest.approx(measured.metrics.ap) == pytest.approx(1.0)
    both = annotate_twice(dataset)  # a cat that is not found passes through the first clip
    (first,) = worst_clips(replace(both, videos=both.videos[:1]), evaluation.predictions, 5, 1, 0.3)
    assert (first.objects, first.ap) == (2, pytest.approx(0.5))
    known = replace(both, videos=(replace(both.videos[0], known=(1,)),))
    (first,) = worst_clips(known, evaluation.predictions, 5, 1, 0.3)
    assert (first.objects, first.ap) == (1, pytest.approx(1.0))


def annotate_twice(dataset):
    """The second clip's cat in the first clip, too."""
    first, second, third = dataset.videos
    return replace(dataset, videos=(replace(first, annotations=first.annotations + second.annotations), second, third))


def test_pictures_show_masks_where_they_are(world, tmp_path):
    pictures = Page(write_report(tmp_path / "r", *world).page.read_text(encoding="utf-8")).pictures
    assert len(pictures) == 2 * 2 * FRAMES
    truth = pictures["v2 (video 2), frame 1, annotated"]
    missed = pictures["v2 (video 2), frame 1, predicted"]  # nothing above the score there
    assert (missed == missed[0, 0]).all()
    assert (truth[10, 5] != truth[20, 30]).any()
    found = [pictures[f"v1 (video 1), frame 0, {side}"] for side in ("annotated", "predicted")]
    np.testing.assert_array_equal(found[0][10:14, 5:13], found[1][10:14, 5:13])  # the same colour


def test_without_metrics_nothing_is_written(world, tmp_path):
    dataset, evaluation = world
    with pytest.raises(ValueError, match="no annotations"):
        write_report(tmp_path / "r", dataset, Evaluation(None, evaluation.predictions))
    assert not (tmp_path / "r").exists()
    with pytest.raises(ValueError, match="got -1 clips"):
        ReportStyle(clips=-1)
