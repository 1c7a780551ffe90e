from concurrent.futures import ThreadPoolExecutor

import pytest

from cavis.evaluation.shards import Identity, ResultFolder, Share, clear, digest, file_digest

MINE = Identity("tiny (1)", "a.json (2)", "top_k 10")
IDS = (7, "a/../b", "..", 12, "ä")


def folder_of(tmp_path, identity=MINE, ids=IDS):
    return ResultFolder(tmp_path / "out", identity, ids)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_every_video_belongs_to_exactly_one_process(processes):
    shares = [Share.from_environment({"RANK": str(r), "WORLD_SIZE": str(processes)}) for r in range(processes)]
    assert sorted(index for share in shares for index in share.of(5)) == list(range(5))


def test_without_other_processes_all_videos_are_ones_own():
    assert list(Share.from_environment({}).of(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("said", [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_rank_that_cannot_be_is_refused_in_words(said):
    with pytest.raises(ValueError, match=f"expected RANK .* got '{said[0]}' of '{said[1]}'"):
        Share.from_environment({"RANK": said[0], "WORLD_SIZE": said[1]})


def test_what_was_found_is_found_again_by_the_next_run(tmp_path):
    first = folder_of(tmp_path)
    assert first.missing() == [0, 1, 2, 3, 4]
    for index in (1, 2, 4):
        first.put(index, {"video": index})
    again = folder_of(tmp_path)
    assert again.missing() == [0, 3]
    assert again.missing(Share(0, 2)) == [0]
    assert again.missing(Share(1, 2)) == [3]
    assert [again.get(index) for index in (1, 2, 4)] == [{"video": index} for index in (1, 2, 4)]
    # Whatever a video is called, its file lies in the folder.
    assert len(list((tmp_path / "out" / "videos").iterdir())) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("name", Identity._fields)
def test_results_of_something_else_are_refused_until_they_are_cleared(tmp_path, name):
    folder_of(tmp_path).put(0, 1)
    other = MINE._replace(**{name: "another"})
    with pytest.raises(FileExistsError, match=f"with another {name}: .*expected another, or --overwrite"):
        folder_of(tmp_path, other)
    clear(tmp_path / "out")
    assert folder_of(tmp_path, other).missing() == [0, 1, 2, 3, 4]


def test_looking_leaves_nothing_behind(tmp_path):
    folder_of(tmp_path).missing()
    assert not (tmp_path / "out").exists()


def test_parts_are_merged_when_all_are_there_and_once(tmp_path):
    merged = []

    def finish(rank):
        share, results = Share(rank, 5), folder_of(tmp_path)
        results.put(rank, rank)
        return results.merge_once(share, lambda: merged.append(rank) or [results.get(index) for index in range(5)])

    assert [finish(0), finish(1)] == [None, None]
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(finish, (2, 3, 4)))
    assert [one for one in outcomes if one is not None] == [[0, 1, 2, 3, 4]]
    assert len(merged) == 1


def test_a_process_on_its_own_measures_again_and_several_do_not(tmp_path):
    results = folder_of(tmp_path, ids=(1, 2))
    results.put(0, 0)
    results.put(1, 1)
    assert results.merge_once(Share(1, 2), lambda: "first") == "first"
    assert results.merge_once(Share(0, 2), lambda: "second") is None
    assert results.merge_once(Share(), lambda: "third") == "third"
    results.put(1, 5)  # something is new
    assert results.merge_once(Share(0, 2), lambda: "fourth") == "fourth"


def test_a_merge_that_fails_is_made_up_for(tmp_path):
    results = folder_of(tmp_path, ids=(1,))
    results.put(0, 0)
    with pytest.raises(ZeroDivisionError):
        results.merge_once(Share(0, 2), lambda: 1 / 0)
    assert results.merge_once(Share(1, 2), lambda: "done") == "done"


def test_a_damaged_file_is_named(tmp_path):
    results = folder_of(tmp_path)
    results.put(3, 1)
    (tmp_path / "out" / "videos" / "12.json").write_text("{")
    with pytest.raises(ValueError, match=r"12\.json: expected the results of a video"):
        results.get(3)


def test_digests_tell_contents_apart(tmp_path):
    assert digest(1, ("a", "b")) == digest(1, ["a", "b"]) != digest(1, ["a", "c"])
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") != file_digest(tmp_path / "c")
