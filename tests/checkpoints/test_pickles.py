"""Files of strangers: all kinds of checkpoints give the same tensors, everything else is refused, and nothing runs."""

import collections
import os
import pickle
import pickletools
import random
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_server import QUOTA_PAGE

from cavis.checkpoints.files import CheckpointError
from cavis.checkpoints.pickles import read_foreign


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "backbone.stem.conv1.weight": torch.randn(8, 3, 7, 7, generator=generator),
        "sem_seg_head.predictor.query_feat.weight": torch.randn(5, 2000, generator=generator),
        "criterion.empty_weight": torch.tensor([1.0, 0.1]),
        "backbone.bn.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(3, generator=generator).half(),
    }


def arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def training_state(state):
    """What detectron2's checkpointer writes beside the weights."""
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
    return {
        "model": state,
        "optimizer": {"state": moments, "param_groups": [{"lr": np.float64(1e-4), "params": [0]}]},
        "scheduler": {"last_epoch": 3, "base_lrs": [np.float64(1e-4)], "milestones": collections.Counter({2: 1})},
        "iteration": np.int64(39999),
    }


WRITERS = {
    "torch": lambda path, state: torch.save(state, path),
    "torch, training": lambda path, state: torch.save(training_state(state), path),
    "torch, before 1.6": lambda path, state: torch.save(
        training_state(state), path, _use_new_zipfile_serialization=False
    ),
    "torch, data parallel": lambda path, state: torch.save(
        {"state_dict": collections.OrderedDict((f"module.{name}", value) for name, value in state.items())}, path
    ),
    "torch, compiled and parallel": lambda path, state: torch.save(
        {f"_orig_mod.module.{name}": value for name, value in state.items()}, path
    ),
    "torch, twice wrapped": lambda path, state: torch.save({"epoch": 3, "state_dict": {"model": state}}, path),
    "safetensors": lambda path, state: save_file(state, path, metadata={"format": "pt"}),
    **{
        f"detectron2, protocol {protocol}": lambda path, state, protocol=protocol: path.write_bytes(
            pickle.dumps(
                {"model": arrays(state), "__author__": "somebody", "matching_heuristics": True}, protocol=protocol
            )
        )
        for protocol in (2, 3, 4, 5)
    },
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_kind_of_file_gives_the_same_tensors(tmp_path, writer):
    path = tmp_path / "file.whatever"
    WRITERS[writer](path, weights())
    read = read_foreign(path)
    assert read.keys() == weights().keys()
    for name, value in weights().items():
        assert read[name].dtype == value.dtype, name
        assert torch.equal(read[name], value), name


def test_names_that_only_partly_begin_with_module_are_kept(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, path)
    assert set(read_foreign(path)) == {"module.a", "b"}


def test_arrays_of_another_byte_order_or_order_of_axes_are_understood(tmp_path):
    path = tmp_path / "file.pkl"
    value = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    path.write_bytes(pickle.dumps({"model": {"big": value.astype(">f4"), "columns": np.asfortranarray(value)}}))
    for read in read_foreign(path).values():
        assert torch.equal(read, torch.from_numpy(value))


def test_numpy_1_names_are_understood(tmp_path):
    path = tmp_path / "file.pkl"
    data = pickle.dumps({"model": {"a": np.arange(3.0), "n": np.float64(2)}}, protocol=2)
    assert b"numpy._core" in data
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    assert torch.equal(read_foreign(path)["a"], torch.arange(3.0, dtype=torch.float64))


class Call:
    """A pickle that calls a function when it is opened."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def exec_code(path):
    return Call(exec, f"open({str(path.with_name('exploded'))!r}, 'w')")


def run_command(path):
    return Call(os.system, f"touch {path.with_name('exploded')}")


def open_file(path):
    return Call(open, str(path.with_name("exploded")), "w")


def get_attribute(path):
    return Call(getattr, Call(__import__, "os"), "system")


def load_numpy(path):
    return Call(np.load, str(path), None, True)


BOMBS = {exec_code: "exec", run_command: "system", open_file: "open", get_attribute: "getattr", load_numpy: "load"}


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
@pytest.mark.parametrize("writer", ["pickle", "torch", "torch, before 1.6"])
def test_a_file_that_wants_to_run_something_is_refused_and_named(tmp_path, bomb, writer):
    path = tmp_path / "file.pkl"
    content = {"model": {"a": np.arange(3.0) if writer == "pickle" else torch.arange(3.0)}, "x": bomb(path)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(CheckpointError) as caught:
        read_foreign(path)
    text = one_sentence(caught, path)
    assert BOMBS[bomb] in text
    assert "nothing of it ran" in text
    assert not (tmp_path / "exploded").exists()


def test_codecs_are_for_bytes_only(tmp_path):
    """Pickles of protocol 2 need _codecs.encode; with another codec it could do more."""
    path = tmp_path / "file.pkl"
    data = pickle.dumps({"model": {"a": Call(__import__("_codecs").encode, "abc", "rot13")}}, protocol=2)
    assert "_codecs" in "".join(str(argument) for _, argument, _ in pickletools.genops(data))
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="rot13"):
        read_foreign(path)


class Kind:
    """A type of numbers that claims to be one of objects, so that numpy would take its bytes for addresses."""

    def __reduce__(self):
        return np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63)


class Array:
    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(2).__reduce__()
        return rebuild, arguments, (1, (2,), Kind(), False, np.array([1.5, -2.0]).tobytes())


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_what_a_type_claims_of_its_memory_is_not_believed(tmp_path, writer):
    path = tmp_path / "file.pkl"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"model": {"a": Array()}}, protocol=2))
    else:
        torch.save({"model": {"a": Array()}}, path)
    assert torch.equal(read_foreign(path)["a"], torch.tensor([1.5, -2.0], dtype=torch.float64))


def test_arrays_of_objects_are_no_weights(tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.array([{}, []], dtype=object), "b": np.array(["text"])}}))
    with pytest.raises(CheckpointError, match="holds no weights, only a, b"):
        read_foreign(path)


def one_sentence(error, path):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    assert text.startswith("expected a checkpoint")
    assert str(path) in text
    return text


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "unpack me")


def compressed(path):
    """A torch file whose contents are packed: a small one could hold as much as the machine has not."""
    plain = path.with_name("plain")
    torch.save({"model": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))


def holed(path):
    """A download in several parts, of which one in the middle did not come."""
    torch.save({"model": {"a": torch.ones(50_000)}}, path)
    data = bytearray(path.read_bytes())
    data[100_000:120_000] = bytes(20_000)
    path.write_bytes(data)


def in_itself(path):
    state = {"epoch": 3}
    state["model"] = state
    path.write_bytes(pickle.dumps(state, protocol=2))


def numbered(path):
    """A pickle of twenty bytes that wants a memo of thirty gigabytes."""
    path.write_bytes(b"\x80\x02K\x01r\xff\xff\xff\xff.")


def claiming(path):
    """A pickle that announces bytes by the terabyte."""
    path.write_bytes(b"\x80\x04\x8e" + (2**42).to_bytes(8, "little") + b"abc.")


def program(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"net/{name}", b"\x80\x02N.")


def truncated(writer, share):
    def write(path):
        WRITERS[writer](path, weights())
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write


IMPOSTORS = {
    "missing": (lambda path: None, "found none"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.touch(), "is empty"),
    "quota page": (lambda path: path.write_bytes(QUOTA_PAGE), "web page.*Google Drive.*browser"),
    "page with spaces": (lambda path: path.write_bytes(b"\n\n  <html><body>Sign in</body></html>"), "web page"),
    "git-lfs pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"),
        "git-LFS pointer.*git lfs pull",
    ),
    "another zip": (other_zip, "zip archive that holds readme.txt"),
    "compressed": (compressed, "is a compressed archive"),
    "TorchScript": (program, "is a TorchScript program"),
    "hole": (holed, "damaged or incomplete"),
    "wrapped in itself": (in_itself, "holds no weights, only epoch, model"),
    "large memo": (numbered, "holds a int, not weights by name"),
    "large bytes": (claiming, "damaged or incomplete"),
    "escapes": (lambda path: torch.save({"a\x1b[2J": torch.zeros(1)}, path), "has an entry that no weights are called"),
    "escapes beside": (lambda path: torch.save({"a\x1b[2J\n": 3}, path), r"only a\?\[2J\?"),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "are sparse, such as a"),
    "meta": (lambda path: torch.save({"a": torch.zeros(3, device="meta")}, path), "without its numbers, such as a"),
    "text": (lambda path: path.write_text("Not found"), "neither a torch file"),
    "noise": (lambda path: path.write_bytes(b"\x80\x04" + bytes(range(256))), "damaged or incomplete"),
    "no tensors": (lambda path: torch.save({"model": {"epoch": 3, "name": "x"}}, path), "no weights, only epoch, name"),
    "a single tensor": (lambda path: torch.save(torch.zeros(3), path), "holds a Tensor, not weights by name"),
    "empty state": (lambda path: torch.save({}, path), "holds no weights, only nothing"),
    **{
        f"{writer}, {share:.0%}": (truncated(writer, share), "damaged or incomplete")
        for writer in ("torch", "torch, before 1.6", "safetensors", "detectron2, protocol 2", "detectron2, protocol 4")
        for share in (0.4, 0.99)
    },
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_what_is_no_checkpoint_is_explained_in_a_sentence(tmp_path, impostor):
    make, words = IMPOSTORS[impostor]
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_foreign(path)
    one_sentence(caught, path)


@pytest.mark.parametrize("writer", WRITERS)
def test_damage_anywhere_is_refused_in_a_sentence_or_does_not_matter(tmp_path, writer):
    path = tmp_path / "file"
    WRITERS[writer](path, {name: value for name, value in weights().items() if value.numel() < 2000})
    whole = path.read_bytes()
    dice = random.Random(writer)
    sentences = []
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 3))):
            damaged[dice.randrange(dice.choice((len(whole), 600)))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.choice((len(whole), dice.randrange(len(whole))))])
        try:
            read_foreign(path)
        except CheckpointError as error:
            sentences.append(str(error))
    assert len(sentences) > 10
    assert not any("\n" in sentence or len(sentence) > 500 for sentence in sentences)
