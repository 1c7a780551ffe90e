"""An evaluation as a page to read and a table to work with: headline numbers, categories, and the worst clips drawn."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from string import Template
from typing import NamedTuple

from cavis.data.ytvis_json import YtvisDataset
from cavis.evaluation.average_precision import VisMetrics
from cavis.evaluation.coverage import Coverage
from cavis.evaluation.report_clips import WorstClip, worst_clips
from cavis.evaluation.run import Evaluation
from cavis.evaluation.tracking import TrackingMetrics

_PRECISION = ("ap", "ap50", "ap75", "ar1", "ar10")
_SIZES = ("ap_small", "ap_medium", "ap_large")
_COVERAGE = ("abo", "recall50")
_COVERAGE_SIZES = ("abo_small", "abo_medium", "abo_large")
_TRACKING = ("hota", "deta", "assa", "loca", "idf1", "idp", "idr", "identity_switches")
_PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
.pair { display: inline-flex; gap: 2px; margin: 0 0.75rem 0.75rem 0; }
.pair figure { margin: 0; }
figcaption { font-size: 0.8rem; opacity: 0.8; }
img { max-width: 100%; height: auto; display: block; }
</style>
<h1>$title</h1>
<p>$about</p>
<h2>All categories</h2>
$headline
<h2>Each category</h2>
$categories
<h2>Worst clips</h2>
$clips
</html>
"""
)


@dataclass(frozen=True)
class ReportStyle:
    """What a report shows."""

    title: str = "Evaluation"
    clips: int = 5
    """How many of the worst clips are drawn; 0: none."""
    frames: int = 4
    """How many frames of each."""
    min_score: float = 0.3
    """Predictions below are not drawn."""

    def __post_init__(self) -> None:
        if self.clips < 0 or self.frames < 1:
            raise ValueError(f"expected 0 clips and 1 frame or more, got {self.clips} clips of {self.frames} frames")


class ReportFiles(NamedTuple):
    """Where a report lies."""

    page: Path
    table: Path


def write_report(
    folder: str | Path,
    dataset: YtvisDataset,
    evaluation: Evaluation,
    covered: Coverage | None = None,
    tracking: TrackingMetrics | None = None,
    style: ReportStyle | None = None,
) -> ReportFiles:
    """Write ``report.html``, which needs no other file, and ``categories.csv`` into a folder, made if it is not there.

    Numbers are fractions; where there is nothing to measure the cell is empty. ``covered`` and ``tracking`` add their
    columns. A ValueError for an evaluation without metrics (a data set without annotations); then nothing is written.
    """
    if evaluation.metrics is None:
        raise ValueError(f"expected an evaluation with metrics, got one of {dataset.path}, which has no annotations")
    style = style or ReportStyle()
    clips = worst_clips(dataset, evaluation.predictions, style.clips, style.frames, style.min_score)
    page = report_page(dataset, evaluation, covered, tracking, clips, style.title)
    rows = category_rows(evaluation.metrics, covered, tracking)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(folder / "report.html", folder / "categories.csv")
    for path, text in zip(files, (page, csv_text(rows)), strict=True):
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    return files


def category_rows(
    metrics: VisMetrics, covered: Coverage | None = None, tracking: TrackingMetrics | None = None
) -> list[list[str]]:
    """A header, and one row of text for each category; empty where there is nothing to measure."""
    columns = [((*_COVERAGE, *_COVERAGE_SIZES), {row.id: row for row in covered.per_category} if covered else None)]
    columns += [(_TRACKING, {row.id: row.scores for row in tracking.per_category if row.objects} if tracking else None)]
    shown = [(names, values) for names, values in columns if values is not None]
    rows = [["id", "name", "objects", *_PRECISION, *(name for names, _ in shown for name in names)]]
    for one in metrics.per_category:
        row = [str(one.id), one.name, str(one.objects), *(_number(getattr(one, name)) for name in _PRECISION)]
        for names, values in shown:
            row += [_number(getattr(values[one.id], name)) if one.id in values else "" for name in names]
        rows.append(row)
    return rows


def report_page(
    dataset: YtvisDataset,
    evaluation: Evaluation,
    covered: Coverage | None,
    tracking: TrackingMetrics | None,
    clips: Sequence[WorstClip],
    title: str,
) -> str:
    """The page as HTML; every name is escaped. ``evaluation`` must have metrics."""
    metrics = evaluation.metrics
    assert metrics is not None
    about = f"{len(dataset)} videos of {dataset.path.name}, {len(evaluation.predictions)} predictions."
    if evaluation.unmatched:
        about += f" Left out, for the data set has no such category: {', '.join(evaluation.unmatched)}."
    return _PAGE.substitute(
        title=escape(title),
        about=escape(about),
        headline=_html_table(_headline(metrics, covered, tracking)),
        categories=_html_table(category_rows(metrics, covered, tracking)),
        clips="\n".join(map(_html_clip, clips)) or "<p>None was drawn.</p>",
    )


def _headline(metrics: VisMetrics, covered: Coverage | None, tracking: TrackingMetrics | None) -> list[list[str]]:
    rows = [["measure", "value"]]
    rows += [[name.replace("_", " "), _number(getattr(metrics, name))] for name in (*_PRECISION, *_SIZES)]
    if covered:
        rows += [[name, _number(getattr(covered, name))] for name in _COVERAGE]
    if tracking:
        values = tracking.combined._asdict() if tracking.objects else dict.fromkeys(_TRACKING, -1.0)
        rows += [[name.replace("_", " "), _number(values[name])] for name in _TRACKING]
    return rows


def _number(value: float) -> str:
    """Four decimals; empty for -1, which stands for nothing to measure. Whole numbers stay as they are."""
    if value == -1:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of comma-separated values."""
    stream = StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _html_clip(clip: WorstClip) -> str:
    number = "1 object" if clip.objects == 1 else f"{clip.objects} objects"
    name = escape(f"{clip.name} (video {clip.video_id})")
    pairs = "\n".join(
        f'<div class="pair">{_html_picture(one.truth, one.frame, "annotated", name)}'
        f"{_html_picture(one.predicted, one.frame, 'predicted', name)}</div>"
        for one in clip.pictures
    )
    return f"<section>\n<h3>{name}: AP {_number(clip.ap)}, {number}</h3>\n{pairs}\n</section>"


def _html_picture(uri: str, frame: int, side: str, name: str) -> str:
    alt = f"{name}, frame {frame}, {side}"
    return f'<figure><img src="{uri}" alt="{alt}"><figcaption>frame {frame}, {side}</figcaption></figure>'
