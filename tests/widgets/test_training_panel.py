"""The training panel with iterators that are easy to hold: threads, clicks, failures."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from widgets import TrainingPanel
from widgets.loss_chart import History, chart
from widgets.training_panel import in_minutes

ROOT = Path(__file__).parents[2]


def record(step, steps=100, **extra):
    return SimpleNamespace(
        step=step, steps=steps, loss=10 / step, terms={"mask": 1 / step}, learning_rate=1e-3, **extra
    )


class Work:
    """A run whose steps happen when the test says so; ``closed`` is what a checkpoint would be."""

    def __init__(self, steps=100):
        self.steps, self.allowed, self.runs, self.done, self.closed = steps, threading.Semaphore(0), 0, 0, []

    def __call__(self):
        self.runs += 1
        try:
            while self.done < self.steps:
                assert self.allowed.acquire(timeout=20)
                self.done += 1
                yield record(self.done, self.steps)
        finally:
            self.closed.append(self.done)

    def allow(self, count):
        for _ in range(count):
            self.allowed.release()


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_a_run_goes_to_its_end_and_shows_all_of_its_steps():
    work = Work(5)
    work.allow(5)
    panel = TrainingPanel(work, saved_in="runs/here")
    panel.train()
    assert panel.wait(20) == "finished"
    assert panel.history.steps == [1, 2, 3, 4, 5]
    assert panel.view.numbers["mask"][-1] == 0.2
    assert "5 of 5" in panel.view.rest
    assert "kept in runs/here" in panel.view.rest


def test_work_beside_the_training_is_named_and_can_be_stopped_and_is_no_step():
    measured = threading.Semaphore(0)

    def run():
        yield record(1, 1)
        for clip in range(1, 4):
            assert measured.acquire(timeout=20)
            yield record(1, 1, note=f"measured clip {clip}")

    panel = TrainingPanel(run)
    panel.train()
    until(lambda: panel.history.steps == [1])
    measured.release()
    until(lambda: panel._last is not None and hasattr(panel._last, "note"))
    panel.stop()
    measured.release()
    assert panel.wait(20) == "stopped"
    assert panel._last.note == "measured clip 2"
    assert "time left" not in panel.view.rest
    assert "speed" not in panel.view.rest
    assert panel.history.steps == [1]
    assert "Losses after 1 steps" in panel.view.chart


def test_a_run_that_only_measures_shows_no_loss():
    panel = TrainingPanel(lambda: [SimpleNamespace(step=5, steps=5, loss=float("nan"), terms={}, learning_rate=1e-3)])
    panel.train()
    assert panel.wait(20) == "finished"
    assert "nan" not in panel.view.rest
    assert panel.view.chart == ""


def test_a_second_click_does_not_start_a_second_run():
    work = Work(3)
    panel = TrainingPanel(work)
    clicks = [threading.Thread(target=panel.buttons["train"].click) for _ in range(8)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    work.allow(3)
    assert panel.wait(20) == "finished"
    assert work.runs == 1


def test_stop_ends_after_the_step_leaves_a_checkpoint_and_train_goes_on():
    work = Work(6)
    panel = TrainingPanel(work)
    panel.buttons["train"].click()
    work.allow(2)
    until(lambda: panel.history.steps == [1, 2])
    panel.buttons["stop"].click()
    work.allow(1)  # the step that was being done
    assert panel.wait(20) == "stopped"
    assert work.closed == [3]
    assert panel.buttons["stop"].disabled
    assert not panel.buttons["train"].disabled
    panel.buttons["train"].click()
    work.allow(3)
    assert panel.wait(20) == "finished"
    assert panel.history.steps == [1, 2, 3, 4, 5, 6]
    assert work.runs == 2


def test_step_does_one_and_pause_waits_without_ending_the_run():
    work = Work(4)
    work.allow(4)
    panel = TrainingPanel(work)
    for count in (1, 2):
        panel.buttons["step"].click()
        until(lambda count=count: panel.state == "paused" and len(panel.history.steps) == count)
        time.sleep(0.05)
        assert len(panel.history.steps) == count
    panel.buttons["train"].click()
    assert panel.wait(20) == "finished"
    assert work.runs == 1
    assert work.closed == [4]


def test_a_paused_run_can_be_stopped():
    work = Work(9)
    work.allow(1)
    panel = TrainingPanel(work)
    panel.step()
    until(lambda: panel.state == "paused")
    panel.stop()
    assert panel.wait(20) == "stopped"
    assert work.closed == [1]


def test_whoever_waits_and_interrupts_gets_a_checkpoint_too():
    work = Work(9)
    panel = TrainingPanel(work)
    panel.train()
    work.allow(1)
    until(lambda: panel.history.steps)

    class Interrupted:
        def join(self, timeout=None):
            self.join = panel_thread.join
            raise KeyboardInterrupt

    panel_thread = panel._thread
    panel._thread = Interrupted()
    work.allow(1)
    with pytest.raises(KeyboardInterrupt):
        panel.wait()
    assert panel.state == "stopped"
    assert work.closed


def failing(error):
    def run():
        yield record(1)
        raise error

    return run


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (failing(FloatingPointError("the loss of step 2 is not finite")), "the loss of step 2 is not finite"),
        (failing(ZeroDivisionError("by zero")), "ZeroDivisionError: by zero"),
        (lambda: iter(()), "expected at least one step of training, got none"),
        (lambda: 3, "TypeError"),
        (lambda: iter([{"step": 1}]), "expected records with step"),
        (lambda: iter([record(1, picture=np.zeros((2, 2)))]), "expected a picture"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
    ids=["diverged", "bug", "nothing", "no iterator", "no records", "no picture", "no start"],
)
def test_what_goes_wrong_is_one_sentence_in_the_panel_and_nothing_is_printed(factory, sentence, capfd):
    panel = TrainingPanel(factory)
    panel.train()
    assert panel.wait(20) == "failed"
    assert sentence in panel.error
    assert "\n" not in panel.error
    assert 'role="alert"' in panel.view.rest
    assert not panel.buttons["train"].disabled
    assert capfd.readouterr() == ("", "")


def test_a_run_with_nothing_left_to_do_says_so_and_is_no_error():
    panel = TrainingPanel(lambda: iter(()), saved_in="runs/arms")
    panel.train()
    assert panel.wait(20) == "finished"
    assert "Nothing left to do; kept in runs/arms; delete that to begin anew" in panel.view.rest
    assert panel.error == ""


def test_a_click_in_the_moment_a_run_ends_starts_the_next_one():
    starts = []

    def run():
        starts.append(len(starts))
        yield record(1)

    panel = TrainingPanel(run)
    ended = threading.Event()
    panel.observe(lambda change: ended.set() if change["new"] == "finished" else None, "state")
    panel.train()
    assert ended.wait(20)
    panel.train()
    assert panel.wait(20) == "finished"
    assert starts == [0, 1]


def test_a_checkpoint_that_cannot_be_written_is_told():
    def run():
        try:
            yield record(1)
            yield record(2)
        finally:
            raise OSError("no space left")

    panel = TrainingPanel(run)
    panel.step()
    until(lambda: panel.state == "paused")
    panel.stop()
    assert panel.wait(20) == "failed"
    assert "no space left" in panel.view.rest


def test_what_is_no_training_is_refused_at_once():
    with pytest.raises(ValueError, match="expected a function"):
        TrainingPanel(iter(()))
    with pytest.raises(ValueError, match="expected a picture"):
        TrainingPanel(Work(), reference=np.zeros((2, 2)))


def test_frozen_parts_and_pictures_are_shown_and_stay_without_a_kernel():
    picture = np.full((4, 6, 3), 9, np.uint8)
    parts = (("backbone", False, 0.0), ("tracker", True, 0.05))
    panel = TrainingPanel(lambda: iter([record(1, picture=picture, parts=parts)]), reference=picture)
    panel.train()
    panel.wait(20)
    left = panel._repr_mimebundle_()["text/html"]
    for words in ("❄ frozen", "has not moved", "✎ learns", "moved by 5.00 %", "what is there", "after step 1", "<svg"):
        assert words in left


def test_the_view_is_updated_some_times_a_second_only():
    work = Work(400)
    work.allow(400)
    panel = TrainingPanel(work)
    drawn = []
    panel.view.observe(lambda change: drawn.append(change), "rest")
    started = time.monotonic()
    panel.train()
    assert panel.wait(60) == "finished"
    assert len(drawn) <= 6 + 5 * (time.monotonic() - started)


def test_losses_of_any_kind_can_be_drawn():
    history = History()
    assert chart(history.thinned()) == ""
    for step in range(1, 1001):
        terms = {"mask": float("nan") if step % 3 else 0.5, "<b>": 0.0} | ({"late": 2.0} if step > 500 else {})
        history.add(SimpleNamespace(step=step, steps=1000, loss=float(step), terms=terms, learning_rate=0.1))
    numbers = history.thinned()
    assert len(numbers["steps"]) <= 300
    assert numbers["steps"][-1] == 1000
    assert numbers["late"][0] is None
    assert numbers["loss"][-1] == np.mean(np.arange(951, 1001))
    drawn = chart(numbers)
    assert "nan" not in drawn
    assert "<b>" not in drawn


def test_times_are_said_in_minutes():
    assert [in_minutes(s) for s in (0.2, 59, 61, 3600)] == ["0 s", "59 s", "1 min 01 s", "60 min 00 s"]


def test_when_the_interpreter_ends_the_run_ends_like_one_that_was_stopped(tmp_path):
    program = f"""
import time
from types import SimpleNamespace
from widgets import TrainingPanel
def run():
    try:
        for step in range(1, 10**6):
            time.sleep(0.01)
            yield SimpleNamespace(step=step, steps=10**6, loss=1.0, terms={{}}, learning_rate=0.1)
    finally:
        open({str(tmp_path / "kept")!r}, "w").close()
panel = TrainingPanel(run)
panel.train()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "kept").exists()


def test_widgets_know_neither_torch_nor_the_model():
    program = (
        "import sys, widgets.context_filter_lab, widgets.training_panel; "
        "print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'cavis', 'PIL', 'scipy', 'pandas'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
