"""From a folder and a model to an evaluation: what fits together, and the way through all videos."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cavis.categories import COCO_AS
from cavis.checkpoints.hub import ReadyModel
from cavis.data.annotated import AnnotatedVideos
from cavis.data.coco import open_coco
from cavis.data.faults import DataError
from cavis.data.layouts import Format, locate, recognise
from cavis.data.opening import open_annotated
from cavis.data.panoptic_maps import MappedDataset
from cavis.data.pictures import as_videos
from cavis.data.ytvis_json import YtvisDataset
from cavis.evaluation.shards import ABOUT, VIDEOS, Identity, ResultFolder, Share, clear, digest, write_text
from cavis.evaluation.tasks import EvaluationTask, InstanceTask, Outcome, PanopticTask, SemanticTask
from cavis.inference.choose import predictor_for, with_task

Dataset = YtvisDataset | MappedDataset
METRICS = "metrics.json"


def open_dataset(
    path: str | Path, split: str | None = None, form: Format | None = None, *, skip_faulty: bool = False
) -> Dataset:
    """Open a data set that can be evaluated: ``ytvis``, ``vipseg``, ``vspw``, or ``coco``, whose pictures are videos.

    Options as in ``open_annotated``. A DataError for panoptic images (COCO): they are there to train with.
    """
    file, found = locate(path, split, form)
    if found == "coco_panoptic":
        raise DataError(
            f"expected annotated videos to evaluate on (ytvis, vipseg or vspw) or images (coco), got {path}: images in "
            f"the form {found!r}, which are there to train with"
        )
    if found == "coco":
        return as_videos(open_coco(file, keep_empty=True, skip_faulty=skip_faulty))
    dataset: AnnotatedVideos = open_annotated(path, split, form=found, skip_faulty=skip_faulty)
    assert isinstance(dataset, Dataset)
    return dataset


def in_words_of(dataset: Dataset, ready: ReadyModel) -> Dataset:
    """Pictures of COCO under the categories of a model of another data set, where COCO's have counterparts there."""
    names = ready.about.config.categories
    mapping = next((one for one in COCO_AS.values() if one.names == names), None)
    if mapping is None or not isinstance(dataset, YtvisDataset) or recognise(dataset.path) != "coco":
        return dataset
    renamed = as_videos(
        open_coco(dataset.path, categories=mapping, keep_empty=True, skip_faulty=bool(dataset.left_out))
    )
    wanted = {video.id for video in dataset.videos}
    videos = tuple(video for video in renamed.videos if video.id in wanted)
    return replace(renamed, videos=videos, left_out=dataset.left_out)


def task_for(dataset: Dataset, ready: ReadyModel, out: Path, top_k: int | None = None) -> EvaluationTask:
    """The evaluation of a model on a data set, written into ``out``.

    ``top_k``: predictions for a video of an instance data set; None: as the model has it. A ValueError for a model of
    another task. A panoptic model is run for the classes of pixels (VSPW), too.
    """
    if isinstance(dataset, YtvisDataset):
        _require(ready, "instance", dataset)
        predictor = predictor_for(ready, top_k)
        return InstanceTask(dataset, predictor.run_instances, predictor.top_k, out)
    if top_k is not None:
        raise ValueError(f"expected a number of predictions for instance data sets only, got one for {dataset.path}")
    if dataset.coding == "labels":
        return SemanticTask(dataset, predictor_for(with_task(ready, "semantic")).run_semantic, out)
    _require(ready, "panoptic", dataset)
    return PanopticTask(dataset, predictor_for(ready).run_panoptic, out)


def identity(
    dataset: Dataset, ready: ReadyModel, weights: str, top_k: int | None = None, settings: Sequence[str] = ()
) -> Identity:
    """What results depend on; ``weights`` is a digest of the model's file, ``settings`` what is changed of it."""
    ids = tuple(dataset.categories) if isinstance(dataset, YtvisDataset) else dataset.category_ids
    videos = [(video.id, video.file_names, video.height, video.width) for video in dataset.videos]
    parts = [ids, dataset.names, videos, *_labelled(dataset)]
    return Identity(
        model=f"{ready.about.name} ({weights})",
        data=f"{dataset.path.name} ({digest(*parts)})",
        settings=f"{ready.inference}, top_k of this evaluation: {top_k}"
        + "".join(f", {setting}" for setting in settings),
    )


def _labelled(dataset: Dataset) -> list[dict[int, tuple[int, ...]]]:
    """What was looked for in each video; nothing where it is everything, so that older results keep their digest."""
    if not isinstance(dataset, YtvisDataset):
        return []
    known = {video.id: video.known for video in dataset.videos if video.known is not None}
    return [known] if known else []


def prepare(out: Path, task: EvaluationTask, share: Share, overwrite: bool) -> None:
    """Make sure that nothing in ``out`` is replaced unasked; with ``overwrite`` what is there is removed.

    A FileExistsError for files that are of no evaluation; a ValueError for several processes that are to overwrite.
    """
    names = (*task.files, METRICS)
    if overwrite and share.processes > 1:
        raise ValueError(f"expected one process to overwrite {out}, got {share.processes}; remove the folder before")
    if overwrite:
        clear(out)
        for name in names:
            _remove(out / name)
    there = [name for name in names if (out / name).exists()]
    if there and not (out / ABOUT).exists():
        raise FileExistsError(f"{out} already holds {', '.join(there)}; expected --overwrite to replace them")


def evaluate_videos(
    task: EvaluationTask, results: ResultFolder, share: Share, progress: Callable[[int, int], None]
) -> Outcome | None:
    """Look at the videos of a share that nobody has looked at, and measure when those of all processes are done.

    Then all files of the task are written, and metrics.json where there are annotations. ``progress`` is told how many
    are done, and of how many. None: other processes have videos to do, or have measured.
    """
    missing = results.missing(share)
    progress(0, len(missing))
    with _tidy(results.folder, alone=share.processes == 1):
        results.begin()
        for done, index in enumerate(missing, start=1):
            results.put(index, task.predict(index))
            progress(done, len(missing))
    return results.merge_once(share, lambda: _finish(task, results))


def _finish(task: EvaluationTask, results: ResultFolder) -> Outcome:
    outcome = task.finish(results.get)
    if outcome.numbers is not None:
        write_text(results.folder / METRICS, json.dumps(outcome.numbers, indent=2) + "\n")
    return outcome


def _require(ready: ReadyModel, task: str, dataset: Dataset) -> None:
    if ready.inference.task != task:
        raise ValueError(
            f"expected a model of the {task} task for {dataset.path}, got {ready.about.name!r} of the "
            f"{ready.inference.task} task"
        )


@contextmanager
def _tidy(out: Path, *, alone: bool) -> Iterator[None]:
    """Leave no empty folders behind when the work fails before there is anything to keep.

    Nor what says what is evaluated, if this process works ``alone``: of several, others may be writing their first.
    """
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        _remove_empty(out / VIDEOS, out / "pan_pred", out / "semantic")
        if alone and out.is_dir() and [*out.iterdir()] == [out / ABOUT]:
            (out / ABOUT).unlink()
        _remove_empty(*created)
        raise


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
