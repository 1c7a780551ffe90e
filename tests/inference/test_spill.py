import numpy as np
import pytest

from cavis.inference.spill import Spill, SpillError


def frames(count=4, queries=5, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(queries, 4, 6)).astype(np.float32), rng.normal(size=(queries, 7)).astype(np.float32))
        for _ in range(count)
    ]


def test_what_is_written_is_read_in_any_order():
    written = frames()
    with Spill() as spill:
        for masks, features in written:
            spill.write(masks, features)
        assert spill.frames == 4
        for t in (2, 0, 3, 1):
            np.testing.assert_array_equal(spill.masks(t, [3, 1]), written[t][0][[3, 1]].astype(np.float16))
            np.testing.assert_array_equal(spill.features(t, [4]), written[t][1][[4]])


def test_the_file_is_gone_however_it_ends(temporary_folder):
    with Spill() as spill:
        spill.write(*frames()[0])
    with pytest.raises(KeyError):
        _fail_inside()
    assert list(temporary_folder.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        spill.masks(0, [0])


def _fail_inside():
    with Spill() as spill:
        spill.write(*frames()[0])
        raise KeyError


def test_the_budget_is_kept():
    size = 5 * 4 * 6 * 2 + 5 * 7 * 4
    with Spill(budget=3 * size) as spill:
        for masks, features in frames(3):
            spill.write(masks, features)
        with pytest.raises(SpillError, match=r"the masks of 3 frames fill .* expected a shorter clip"):
            spill.write(*frames()[0])
        assert spill.frames == 3
        assert spill.masks(2, [0]).shape == (1, 4, 6)


def test_a_full_disk_is_told_before_it_is_full(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with Spill() as spill, pytest.raises(SpillError, match="no room for more"):
        spill.write(*frames()[0])
