import subprocess
import sys
import threading

import pytest

from cavis.video import VideoError, open_video, reader, trim


@pytest.mark.parametrize("setting", [reader._decord, lambda: None])
def test_a_closed_file_is_not_opened_again(setting, clip, monkeypatch):
    monkeypatch.setattr(reader, "_decord", setting)
    source = open_video(clip("long"))
    begun = iter(source)
    next(begun)
    with trim(source, stride=2) as part:
        part[1]
    for read in (lambda: source[1], lambda: part[1], lambda: next(begun), lambda: next(iter(source))):
        with pytest.raises(VideoError, match=r"long\.mp4 was closed"):
            read()


READ_WHILE_CLOSING = """
import sys, threading, time
from cavis.video import VideoError, open_video, reader
if sys.argv[2] == "pyav":
    reader._decord = lambda: None
expected = list(open_video(sys.argv[1]))
for turn in range(40):
    source = open_video(sys.argv[1])
    wrong, refused = [], threading.Event()
    def read():
        index = 0
        try:
            while True:
                index = (index + 37) % len(expected)
                if not (source[index] == expected[index]).all():
                    wrong.append(index)
        except VideoError:
            refused.set()
    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.001 * (1 + turn % 12))
    source.close()
    thread.join(60)
    assert refused.is_set() and not wrong, wrong
"""


@pytest.mark.parametrize("which", ["decord", "pyav"])
def test_a_read_that_meets_a_close_ends_in_a_picture_or_a_refusal(which, clip):
    # In a program of its own: what goes wrong here ends the program.
    command = [sys.executable, "-c", READ_WHILE_CLOSING, str(clip("long")), which]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"{run.returncode}: {run.stderr}"


def test_closing_waits_for_the_read_that_is_under_way(clip, monkeypatch):
    monkeypatch.setattr(reader, "_decord", lambda: None)
    source = open_video(clip("long"))
    inside, go_on, closed, pictures = threading.Event(), threading.Event(), threading.Event(), []
    convert = reader.Converter.__call__

    def slow(self, frame):
        inside.set()
        assert go_on.wait(30)
        return convert(self, frame)

    monkeypatch.setattr(reader.Converter, "__call__", slow)
    reading = threading.Thread(target=lambda: pictures.append(source[5]))
    reading.start()
    assert inside.wait(30)
    closing = threading.Thread(target=lambda: (source.close(), closed.set()))
    closing.start()
    assert not closed.wait(0.2)
    go_on.set()
    assert closed.wait(30)
    reading.join(30)
    assert len(pictures) == 1
