"""Habits of the core that a linter does not know, read from its syntax trees."""

import ast
import builtins
import dis
import re
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cavis").rglob("*.py"))
TREES = {file.relative_to(ROOT): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
FACADE = {
    "OfflinePredictor",
    "OnlinePredictor",
    "Rle",
    "Track",
    "VideoResult",
    "bundled_models",
    "get_preset",
    "load_model",
    "open_video",
    "write_film",
    "write_results",
    "write_tracks",
    "__version__",
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def found(*kinds):
    """Every node of some kinds: (where, node)."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{file}:{node.lineno}", node


def stray_names(code, known):
    """Names that code takes from its module or the builtins and that neither has."""
    stored = {step.argval for step in dis.get_instructions(code) if step.opname in {"STORE_NAME", "STORE_GLOBAL"}}
    taken = {step.argval for step in dis.get_instructions(code) if step.opname in {"LOAD_NAME", "LOAD_GLOBAL"}}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    names = known | stored
    return (taken - names).union(*(stray_names(each, names) for each in inner))


def test_the_core_is_found():
    assert len(FILES) > 40


def test_no_file_has_more_than_400_lines():
    long = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_no_function_has_more_than_60_lines():
    lengths = {f"{where} {node.name}": node.end_lineno - node.lineno + 1 for where, node in found(*FUNCTIONS.__args__)}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_nothing_is_moved_to_a_device_by_name():
    calls = [where for where, node in found(ast.Attribute) if node.attr == "cuda" and where.startswith("cavis/model")]
    calls += [
        where for where, node in found(ast.Call) if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    ]
    assert calls == []


def test_a_forward_returns_records_and_says_so():
    for where, node in found(ast.FunctionDef):
        if node.name != "forward":
            continue
        assert node.returns is not None, where
        assert re.search(r"\b(dict|Dict|Mapping)\b", ast.unparse(node.returns)) is None, where
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return):
                assert not isinstance(inner.value, ast.Dict | ast.DictComp), where
                assert not (isinstance(inner.value, ast.Call) and ast.unparse(inner.value.func) == "dict"), where


def test_nothing_below_the_facade_imports_it():
    for where, node in found(ast.ImportFrom):
        if node.module == "cavis" and node.level == 0 and not where.startswith(("cavis/cli/", "cavis/__main__.py")):
            assert FACADE.isdisjoint(alias.name for alias in node.names), where


def test_the_facade_keeps_its_word():
    import cavis

    assert set(cavis.__all__) | {"__version__"} == FACADE
    for name in cavis.__all__:
        assert getattr(cavis, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'does_not_exist'"):
        _ = cavis.does_not_exist


def test_frozen_records_are_all_frozen():
    for where, node in found(ast.ClassDef):
        if not where.startswith(("cavis/records.py", "cavis/config.py")):
            continue
        assert any("dataclass(frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list), where


def test_shape_strings_are_evaluated():
    """With postponed annotations the shapes would be text, and checked by nobody."""
    for file, tree in TREES.items():
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {"jaxtyping", "__future__"} <= names, file


def test_losses_do_not_know_the_model_and_the_model_no_targets():
    for file, tree in TREES.items():
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if file.parts[:2] == ("cavis", "model"):
            assert not any("Targets" in name or name.startswith("cavis.losses") for name in imported), file
        if file.parts[:2] == ("cavis", "losses"):
            assert not any(name.startswith("cavis.model") for name in imported), file


def test_every_name_is_defined_or_imported():
    """Linters cannot be asked, for they take the letters of jaxtyping's shapes for names."""
    files = [*FILES, ROOT / "app.py", *(ROOT / "widgets").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    given = {*dir(builtins), "__file__", "__name__", "__qualname__", "__module__", "__annotations__"}
    stray = {file: stray_names(compile(file.read_text(encoding="utf-8"), str(file), "exec"), given) for file in files}
    assert {str(file.relative_to(ROOT)): names for file, names in stray.items() if names} == {}


def test_a_name_without_its_import_is_found():
    source = "import os\n\ndef list_all(x):\n    return os.listdir(x), [Path(y) for y in x]\n"
    assert stray_names(compile(source, "made up", "exec"), set(dir(builtins))) == {"Path"}
