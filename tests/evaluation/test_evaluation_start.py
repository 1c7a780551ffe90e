"""What belongs to one evaluation, and what an evaluation that ends early leaves behind."""

import json
import shutil

import pytest
from nano import nano_config, nano_model, nano_preset

from cavis.checkpoints.files import ModelFile
from cavis.checkpoints.hub import ReadyModel
from cavis.evaluation.shards import ABOUT, Identity, ResultFolder, Share
from cavis.evaluation.start import evaluate_videos, identity, open_dataset, prepare
from cavis.evaluation.tasks import Outcome

ONE = Identity("nano (1)", "a.json (2)", "top_k 10")
READY = ReadyModel(nano_model(), ModelFile("nano", "nano", nano_config(), "tracker", ""), nano_preset().inference, "")


def write_clips(root, *labelled):
    """Videos of a cat; what was looked for in each, None where the file does not say."""
    videos = []
    for number, names in enumerate(labelled, start=1):
        one = {"id": number, "height": 8, "width": 8, "file_names": [f"{number}/0.jpg"]}
        videos.append(one if names is None else one | {"labelled_categories": names})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (root / "annotations.json").write_text(json.dumps({"videos": videos, "categories": categories, "annotations": []}))
    return open_dataset(root)


def test_results_do_not_outlive_a_correction_of_what_was_looked_for(tmp_path):
    before = identity(write_clips(tmp_path, ["cat"], None), READY, "w")
    ResultFolder(tmp_path / "out", before, [1, 2]).put(0, {})
    for labelled in ((["cat", "dog"], None), ("all", None), (None, ["cat"]), ([], None)):
        after = identity(write_clips(tmp_path, *labelled), READY, "w")
        with pytest.raises(FileExistsError, match="holds an evaluation with another data"):
            ResultFolder(tmp_path / "out", after, [1, 2])
    again = identity(write_clips(tmp_path, ["cat"], None), READY, "w")
    assert ResultFolder(tmp_path / "out", again, [1, 2]).missing() == [1]


def test_saying_that_everything_was_looked_for_changes_nothing(tmp_path):
    silent = identity(write_clips(tmp_path, None, None), READY, "w")
    assert identity(write_clips(tmp_path, "all", None), READY, "w") == silent


class Pictures:
    """A task that writes pictures of a video before its results are kept; ``meanwhile`` is called between the two."""

    files = ("pred.json", "pan_pred")

    def __init__(self, out, meanwhile=lambda: None, fails=False):
        self.out, self.meanwhile, self.fails = out, meanwhile, fails

    def predict(self, index):
        if self.fails:
            raise OSError("no such frame")
        folder = self.out / "pan_pred" / str(index)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0.png").write_bytes(b"")
        self.meanwhile()
        return index

    def finish(self, found):
        return Outcome({"sum": float(sum(found(index) for index in range(3)))}, [], ())


def run(task, share=Share()):  # noqa: B008 - frozen
    prepare(task.out, task, share, overwrite=False)
    return evaluate_videos(task, ResultFolder(task.out, ONE, range(3)), share, lambda done, of: None)


def test_what_is_killed_in_its_first_video_goes_on(tmp_path):
    copies = []

    def copy():
        copies.append(shutil.copytree(tmp_path / "out", tmp_path / f"killed {len(copies)}"))

    whole = run(Pictures(tmp_path / "out", copy))
    assert len(copies) == 3
    for killed in copies:  # what a kill at that moment leaves
        assert run(Pictures(killed)) == whole


def test_a_process_that_comes_late_joins_in(tmp_path):
    joined = []

    def late():
        if not joined:
            joined.append(True)
            assert run(Pictures(tmp_path / "out"), Share(1, 2)) is None  # the first process has videos to do

    assert run(Pictures(tmp_path / "out", late), Share(0, 2)).numbers == {"sum": 3.0}
    assert joined == [True]


def test_pictures_of_no_evaluation_are_still_not_touched(tmp_path):
    (tmp_path / "pan_pred").mkdir()
    with pytest.raises(FileExistsError, match="already holds pan_pred; expected --overwrite"):
        run(Pictures(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pan_pred"]


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_a_failure_before_there_is_anything_leaves_nothing(tmp_path, there):
    out = tmp_path / "a" / "out"
    if there:
        out.mkdir(parents=True)
    with pytest.raises(OSError, match="no such frame"):
        run(Pictures(out, fails=True))
    assert [path.name for path in tmp_path.rglob("*")] == (["a", "out"] if there else [])


def test_of_several_processes_a_failing_one_leaves_the_others_what_they_need(tmp_path):
    def other_fails():
        with pytest.raises(OSError, match="no such frame"):
            run(Pictures(tmp_path / "out", fails=True), Share(1, 2))
        assert (tmp_path / "out" / ABOUT).exists()

    assert run(Pictures(tmp_path / "out", other_fails), Share(0, 2)) is None
    with pytest.raises(OSError, match="no such frame"):
        run(Pictures(tmp_path / "new", fails=True), Share(1, 2))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [ABOUT]
