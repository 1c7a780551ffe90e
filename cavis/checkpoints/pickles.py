"""Checkpoint files of strangers, opened without running anything that is in them.

Known are torch files (``.pth``, ``.pt``, ``.bin``; zip archives and the older form), detectron2's pickles of numpy
arrays (``.pkl``) and safetensors files. What a file is, its first bytes decide, not its name.
"""

import codecs
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cavis.checkpoints.download import is_web_page
from cavis.checkpoints.files import CheckpointError

WRAPPERS = ("model", "state_dict")
"""Under which names training programs keep the weights."""
_WRAPPED = 3
_PARALLEL = ("_orig_mod.", "module.", "_orig_mod.")
"""What compiled and data-parallel models put before every name, in any order."""
_LONGEST_NAME = 300

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_OLD_TORCH = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that files written by torch before 1.6 begin with, after the two bytes of the pickle protocol."""
_LFS = b"version https://git-lfs"
_HEAD = 4096


def read_foreign(path: Path) -> Mapping[str, Tensor]:
    """The named tensors of a checkpoint of any known kind, on the CPU and in the file's own types.

    Weights that lie under ``model`` or ``state_dict`` are taken from there, and the ``module.`` or ``_orig_mod.`` that
    data-parallel training or compiling puts before every name is taken away. Torch and safetensors files stay mapped:
    their bytes are read when a tensor is used (those of a zip archive once more, for its checksums); those of a
    detectron2 pickle are held once. A CheckpointError says in one sentence what the file is instead, or which object
    other than weights it asks for; nothing of it runs.
    """
    if path.is_dir():
        raise CheckpointError(f"expected a checkpoint file, but {path} is a folder")
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise CheckpointError(f"expected a checkpoint, but {path} cannot be read: {error.strerror}") from error
    _refuse_impostors(path, head)
    return _named_tensors(path, _opener(head)(path))


def _refuse_impostors(path: Path, head: bytes) -> None:
    """Things that downloads leave behind instead of a checkpoint."""
    if not head:
        _refuse(path, "is empty: the download did not begin, fetch it again")
    if is_web_page(head):
        _refuse(
            path,
            "is a web page or a message that came instead of the file (Google Drive's download limit, or a question to "
            "confirm or to sign in): open the file's address in a browser, download it there, and take that file",
        )
    if head.startswith(_LFS):
        _refuse(path, "is a git-LFS pointer, not the file itself: run `git lfs pull` where it was cloned")


def _opener(head: bytes) -> Callable[[Path], Any]:
    if head.startswith(_ZIP):
        return _open_zip
    if head.startswith(_PICKLE):
        return _open_old_torch if head[2:].startswith(_OLD_TORCH) else _open_pickle
    if head[8:9] == b"{":
        return _open_safetensors
    return _open_unknown


def _open_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:  # the list of contents is at the very end
            _refuse_other_archives(path, archive)
            damaged = archive.testzip()  # torch does not look at the checksums of what it maps
    except CheckpointError:
        raise
    # zipfile says NotImplementedError of what no torch file has: foreign compression, encryption, several disks
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, RuntimeError) as error:
        _refuse_incomplete(path, error)
    if damaged is not None:
        _refuse_incomplete(path)
    return _load_torch(path, mmap=True)


def _refuse_other_archives(path: Path, archive: zipfile.ZipFile) -> None:
    """Zip archives that are no weights of torch, or that would grow when they are opened."""
    names = archive.namelist()
    if not any(name.endswith("/data.pkl") for name in names):
        some = ", ".join(names[:3]) or "nothing"
        _refuse(path, f"is a zip archive that holds {some}: unpack it, and take the checkpoint that is inside")
    if any(name.endswith("/constants.pkl") for name in names):
        _refuse(path, "is a TorchScript program: take the weights it was made of")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        _refuse(path, "is a compressed archive, which torch never writes: it was not unpacked")


def _open_old_torch(path: Path) -> Any:
    return _load_torch(path, mmap=False)


def _load_torch(path: Path, *, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _NUMPY.items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds here
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden:
            _refuse_object(path, forbidden[1], error)
        _refuse_incomplete(path, error)


def _open_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file, encoding="latin1").load()
    except _ForbiddenError as error:
        _refuse_object(path, str(error), error)
    except Exception as error:  # a damaged pickle can raise anything
        _refuse_incomplete(path, error)


def _open_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        _refuse_incomplete(path, error)


def _open_unknown(path: Path) -> NoReturn:
    _refuse(path, "is neither a torch file nor a detectron2 pickle nor a safetensors file")


class _ForbiddenError(pickle.UnpicklingError):
    """Names an object that weights do not need."""


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 keep bytes; other codecs can do more than that."""
    if encoding not in ("latin1", "latin-1"):
        raise _ForbiddenError(f"_codecs.encode to {encoding}")
    return codecs.latin_1_encode(text)[0]


class _Kind:
    """Stands in for numpy's dtype, which believes what a pickle says of its memory; this believes letters only."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def dtype(self) -> np.dtype | None:
        """The dtype, if it is one of numbers."""
        if not re.fullmatch(r"[bfiu]\d", self.code) or self.order not in ("<", ">", "=", "|"):
            return None
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """Stands in for numpy's array, before and after its bytes are there."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, data = state
        self.value = _array(data, kind, shape, "F" if by_columns else "C").value


def _array(data: Any, kind: _Kind, shape: tuple[int, ...], order: Any = "C", axes: Any = None) -> _Array:
    """An array over its bytes, which are not copied; of something other than numbers it has no value."""
    array, dtype = _Array(), kind.dtype()
    if dtype is not None:
        data = codecs.latin_1_encode(data)[0] if isinstance(data, str) else data  # as Python 2 wrote them
        flat = np.frombuffer(data, dtype)
        array.value = flat.reshape(shape, order=order) if axes is None else flat.reshape(shape).transpose(axes)
    return array


def _scalar(*_: Any) -> None:
    """Numbers of numpy lie beside weights, never in them."""


_NUMPY = {
    "numpy.dtype": _Kind,
    "numpy.ndarray": _Array,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
"""What stands in for the parts of arrays, by the names of numpy 1 and 2."""
_ALLOWED: dict[str, Any] = {
    **_NUMPY,
    "_codecs.encode": _bytes_of,
    "collections.OrderedDict": OrderedDict,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (complex, bytearray, set, frozenset)
    },
}


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that knows numpy arrays and plain containers, and asks nothing else of Python.

    The one written in Python, for that in C takes as much memory as the number of a memo in the file says.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The object behind a name, if weights can need it."""
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None


def _named_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Unwrap, keep what is a tensor, and name it without the prefix of data-parallel training."""
    if not isinstance(content, Mapping):
        _refuse(path, f"holds a {type(content).__name__}, not weights by name")
    state = _unwrapped(content)
    found = {name: _tensor(value) for name, value in state.items() if isinstance(name, str)}
    tensors = {name: value for name, value in found.items() if value is not None}
    if not tensors:
        some = ", ".join(str(name) for name in list(state)[:3]) or "nothing"
        _refuse(path, f"holds no weights, only {some}")
    for name, value in tensors.items():
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            _refuse(path, f"has an entry that no weights are called: {name[:40]!r}")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else "without its numbers" if value.is_meta else "sparse"
            _refuse(path, f"has entries that are {kind}, such as {name}: save the plain weights")
    for prefix in _PARALLEL:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _unwrapped(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The weights under the names that training programs give them; a file may wrap them twice, or in itself."""
    state = content
    for _ in range(_WRAPPED):
        state = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), state)
    return state


def _tensor(value: Any) -> Tensor | None:
    """A tensor that shares the value's memory; None for what is no array of numbers."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, _Array) or value.value is None:
        return None
    native = value.value.astype(value.value.dtype.newbyteorder("="), copy=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody else has its bytes
        return torch.from_numpy(native)


def _refuse(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    shown = "".join(letter if letter.isprintable() else "?" for letter in what)  # names come from the file
    shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}..."
    raise CheckpointError(f"expected a checkpoint, but {path} {shown}") from error


def _refuse_object(path: Path, name: str, error: Exception) -> NoReturn:
    _refuse(path, f"asks for {name}, which weights do not need: it was not opened, and nothing of it ran", error)


def _refuse_incomplete(path: Path, error: Exception | None = None) -> NoReturn:
    size = path.stat().st_size
    _refuse(path, f"is damaged or incomplete ({size:,} bytes are there): fetch it again", error)
