from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import table_of
from nano import CATEGORIES, nano_config, nano_model
from pycocotools import mask as coco

from cavis import OnlinePredictor, rle
from cavis.analysis import (
    LAYERS,
    Footage,
    Truth,
    collect,
    read_table,
    row_numbers,
    sightings,
    tabulate,
    vectors,
    write_table,
)
from cavis.records import Track, VideoResult
from cavis.video.sources import ArraySource


def test_every_visible_track_and_frame_has_one_row_that_says_what_the_result_says(ready, squares):
    footage = squares(0)
    table = collect(ready, [footage], min_score=0.0)
    with footage.open() as source:
        result = OnlinePredictor(ready).run(source)
    assert len(table) == sum(int(track.visible.sum()) for track in result.tracks) > 20
    for track in result.tracks:
        rows = table[table["track"] == track.id].set_index("frame")
        assert rows.index.tolist() == np.flatnonzero(track.visible).tolist()
        for t, row in rows.iterrows():
            assert row[["x", "y", "width", "height"]].tolist() == track.boxes[t].tolist()
            assert row["area"] == rle.decode(track.masks[t]).sum()
            assert (row["category"], row["score"]) == (CATEGORIES[track.label], track.score)
            np.testing.assert_array_equal(row["core"], track.core[t])
            np.testing.assert_array_equal(row["context_aware"], track.context_aware[t])


def test_collecting_twice_gives_the_same_bytes(ready, squares, tmp_path):
    for name in ("first", "second"):
        write_table(tmp_path / name, collect(ready, [squares(0), squares(1)], min_score=0.0, seed=4))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_table_comes_back_from_disk_as_it_was(ready, squares, tmp_path):
    table = collect(ready, [squares(2)], min_score=0.0, seed=7)
    write_table(tmp_path / "table.parquet", table)
    back = read_table(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(back, table)
    assert back.attrs == table.attrs
    assert (back.attrs["model"], back.attrs["seed"], "torch" in back.attrs["versions"]) == ("nano", 7, True)
    for layer in LAYERS:
        np.testing.assert_array_equal(vectors(back, layer), vectors(table, layer))


def test_context_aware_is_core_and_context_embedding_side_by_side(ready, squares):
    table = collect(ready, [squares(0)], min_score=0.0)
    core, embedding, both = (vectors(table, layer) for layer in LAYERS)
    np.testing.assert_array_equal(np.concatenate([core, embedding], axis=1), both)
    assert not np.array_equal(core, embedding)


def test_a_model_without_context_has_core_features_only(ready, squares):
    config = nano_config(context="none")
    plain = replace(ready, model=nano_model(context="none"), about=replace(ready.about, config=config))
    table = collect(plain, [squares(0)], min_score=0.0)
    assert vectors(table, "core").shape == (len(table), 32)
    with pytest.raises(ValueError, match="expected a model with context"):
        vectors(table, "context_embedding")


def disc(y: int, x: int, radius: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def one_frame(*masks: np.ndarray) -> VideoResult:
    tracks = tuple(
        Track(n, np.array([0.9, 0.1]), (rle.encode(mask),), np.array([rle.box(rle.encode(mask))]), *np.ones((2, 1, 4)))
        for n, mask in enumerate(masks)
    )
    return VideoResult(tracks, 48, 64, np.zeros(1), ("cat", "dog"), "none")


def test_a_row_shows_the_object_that_it_overlaps_most_by_half_or_more():
    truths = (disc(20, 20), disc(20, 45))
    found = (disc(21, 22), disc(20, 43), disc(40, 8), disc(20, 26))
    truth = Truth((7, 8), ("cat", "dog"), np.stack(truths))
    table = tabulate(one_frame(*found), Footage("a", lambda: None, lambda t: truth))
    expected = coco.iou(
        [rle.as_coco(rle.encode(one)) for one in found], [rle.as_coco(rle.encode(one)) for one in truths], [0, 0]
    )
    for row, overlaps in zip(table.itertuples(), expected, strict=True):
        if overlaps.max() >= 0.5:
            assert (row.identity, row.true_category) == (
                truth.ids[overlaps.argmax()],
                truth.categories[overlaps.argmax()],
            )
            assert row.overlap == pytest.approx(overlaps.max())
        else:
            assert (row.identity, row.true_category, row.overlap) == (-1, "", 0.0)
    assert table["identity"].tolist() == [7, 8, -1, -1]


def test_rows_of_unannotated_clips_show_nobody(ready, squares):
    table = collect(ready, [replace(squares(0), truth=None)], min_score=0.0)
    assert set(table["identity"]) == {-1}


def test_clips_without_tracks_make_an_empty_table_that_can_be_kept(ready, squares, tmp_path):
    table = collect(ready, [squares(0)], min_score=1.0)
    assert len(table) == 0
    write_table(tmp_path / "empty.parquet", table)
    assert len(read_table(tmp_path / "empty.parquet")) == 0
    assert vectors(table, "core").shape == (0, 0)


def test_row_numbers_lead_back_to_track_and_frame(ready, squares):
    table = collect(ready, [squares(0), squares(1)], min_score=0.0)
    tracks = sorted(set(table["track"]))
    numbers = row_numbers(table, "squares 1", tracks, 6)
    found = {(tracks[n], t): numbers[n, t] for n in range(len(tracks)) for t in range(6) if numbers[n, t] >= 0}
    part = table[table["clip"] == "squares 1"]
    assert found == {(row.track, row.frame): row.Index for row in part.itertuples()}


def test_other_files_are_refused_with_a_sentence(tmp_path):
    (tmp_path / "a").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "a")
    table_of(np.ones((3, 4)), [0, 1, 2]).drop(columns="core").to_parquet(tmp_path / "b")
    with pytest.raises(ValueError, match="lacks core"):
        read_table(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "c")


def test_footage_is_opened_once_and_closed_again(ready):
    opened = []

    class Counted(ArraySource):
        def close(self) -> None:
            opened.append("closed")

    def open_it() -> Counted:
        opened.append("opened")
        return Counted(np.zeros((3, 64, 96, 3), np.uint8), fps=10)

    collect(ready, [Footage("black", open_it)])
    assert opened == ["opened", "closed"]


def test_clips_of_one_name_are_refused_before_any_work(ready, squares):
    with pytest.raises(ValueError, match="expected clips of different names, got 'squares 1' twice"):
        collect(ready, [squares(0), squares(1), squares(1)])


def test_each_object_is_sighted_once_a_frame_by_the_surest_track():
    rng = np.random.default_rng(0)
    size = 200
    table = pd.DataFrame(
        {
            "clip": rng.choice(["a", "b"], size),
            "frame": rng.integers(0, 5, size),
            "track": np.arange(size),
            "identity": rng.integers(-1, 4, size),
            "score": rng.permutation(size) / size,
        }
    )
    seen = sightings(table, "a")
    best = table[(table["clip"] == "a") & (table["identity"] >= 0)].groupby(["identity", "frame"])["score"].max()
    assert seen.set_index(["identity", "frame"])["score"].sort_index().equals(best.sort_index())
    assert (seen["track"] == seen.index).all()  # rows keep their numbers
