import numpy as np
import pytest
from PIL import Image

from cavis.video import VideoError, clips_at, open_video


@pytest.fixture
def film(clip):
    return clip("one").read_bytes()


def put_picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(path)


def test_a_folder_stands_for_the_videos_and_folders_of_frames_in_it(tmp_path, film):
    (tmp_path / "b.mp4").write_bytes(film)
    (tmp_path / ".hidden.mp4").write_bytes(film)
    (tmp_path / "notes.txt").write_text("not a clip")
    put_picture(tmp_path / "a" / "0.png")
    assert clips_at(tmp_path) == {"a": tmp_path / "a", "b": tmp_path / "b.mp4"}
    assert clips_at(tmp_path / "a") == {"a": tmp_path / "a"}
    assert clips_at(tmp_path / "b.mp4") == {"b": tmp_path / "b.mp4"}


@pytest.mark.parametrize("folder", ["clips", "clips/inner"])
def test_a_picture_beside_videos_does_not_hide_them(tmp_path, film, folder):
    mixed = tmp_path / folder
    mixed.mkdir(parents=True, exist_ok=True)
    put_picture(mixed / "cover.jpg")
    (mixed / "film.mp4").write_bytes(film)
    words = rf"{mixed.name} holds pictures \(cover\.jpg\) and videos \(film\.mp4\); expected the frames of one clip, or"
    with pytest.raises(VideoError, match=words):
        clips_at(tmp_path / "clips")


def test_other_files_and_hidden_ones_beside_frames_do_no_harm(tmp_path, film):
    put_picture(tmp_path / "0.png")
    (tmp_path / "notes.txt").write_text("not a clip")
    (tmp_path / ".hidden.mp4").write_bytes(film)
    assert clips_at(tmp_path) == {tmp_path.stem: tmp_path}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.avi", "a.mp4", "a.mp4.mov", "b.mp4"], ["a.avi", "a.mp4", "a.mp4.mov", "b"]),
        (["a.mp4", "a.mp4.mov"], ["a", "a.mp4.mov"]),
        (["a.mp4", "a.mp4.avi", "a.mp4.mov"], ["a", "a.mp4.avi", "a.mp4.mov"]),
    ],
)
def test_no_clip_is_lost_whatever_the_files_are_called(tmp_path, film, files, names):
    for name in files:
        (tmp_path / name).write_bytes(film)
    assert clips_at(tmp_path) == {name: tmp_path / file for name, file in zip(names, files, strict=True)}


def test_a_folder_and_a_video_of_one_name_are_two_clips(tmp_path, film):
    put_picture(tmp_path / "a" / "0.png")
    (tmp_path / "a.mp4").write_bytes(film)
    clips = clips_at(tmp_path)
    assert clips == {"a": tmp_path / "a", "a.mp4": tmp_path / "a.mp4"}
    for path in clips.values():
        with open_video(path) as source:
            assert len(source) >= 1


def test_a_folder_without_clips_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a clip")
    with pytest.raises(VideoError, match="neither pictures, nor videos, nor folders of pictures"):
        clips_at(tmp_path)
