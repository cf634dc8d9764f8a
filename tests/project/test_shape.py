"""Budgets on the shape of the sources: sizes, types, no import cycles, no path of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "ablate").rglob("*.py"))

LARGEST_FILE = 600
LONGEST_FUNCTION = 100
MEAN_FUNCTION = 15
FIELDS_OF_A_CLASS = 20
BROAD_HANDLERS = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def functions() -> Iterator[tuple[str, Function, bool]]:
    """Every function with its place and whether it takes an instance or class first."""
    for place, tree in trees():
        for parent in ast.walk(tree):
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, Function):
                    static = any(ast.unparse(item) == "staticmethod" for item in node.decorator_list)
                    yield f"{place}:{node.lineno} {node.name}", node, isinstance(parent, ast.ClassDef) and not static


def length(node: Function) -> int:
    """Lines from ``def`` to the end, the docstring excluded."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def unannotated(node: Function, bound: bool) -> list[str]:
    """Names of parameters (and ``return``) without an annotation."""
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args][int(bound) :] + arguments.kwonlyargs
    parameters += [item for item in (arguments.vararg, arguments.kwarg) if item is not None]
    missing = [item.arg for item in parameters if item.annotation is None]
    return missing + (["return"] if node.returns is None and node.name != "__init__" else [])


def broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything and does not raise again."""
    names = {"BaseException", "Exception"}
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    everything = any(item is None or (isinstance(item, ast.Name) and item.id in names) for item in caught)
    return everything and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_no_file_is_larger_than_the_budget() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {place: lines for place, lines in sizes.items() if lines > LARGEST_FILE} == {}


def test_functions_stay_short() -> None:
    lengths = {place: length(node) for place, node, _ in functions()}
    assert {place: lines for place, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
    assert mean(lengths.values()) <= MEAN_FUNCTION


def test_every_parameter_and_result_is_typed() -> None:
    gaps = {place: missing for place, node, bound in functions() if (missing := unannotated(node, bound))}
    assert gaps == {}


def test_classes_have_few_fields() -> None:
    classes = ((place, node) for place, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    fields = {
        f"{place} {node.name}": sum(isinstance(item, ast.AnnAssign) for item in node.body) for place, node in classes
    }
    assert {place: count for place, count in fields.items() if count > FIELDS_OF_A_CLASS} == {}


def test_every_shape_suffix_is_in_the_legend() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("### Shape suffixes")[1].split("\n## ")[0]
    legend = set(re.findall(r"^\| ([A-Z]) \|", table, re.MULTILINE))
    names = {
        name
        for _, tree in trees()
        for node in ast.walk(tree)
        for name in (getattr(node, "id", ""), getattr(node, "arg", ""), getattr(node, "attr", ""))
        if isinstance(name, str)
    }
    axes = {name: found[1] for name in names if (found := re.fullmatch(r"[a-z]\w*_([A-Z0-9]{1,3})", name))}
    assert {name for name, letters in axes.items() if not set(letters) - set("0123456789") <= legend} == set()
    assert legend == {letter for letters in axes.values() for letter in letters if letter.isupper()}


def test_no_global_statements() -> None:
    found = [f"{place}:{n.lineno}" for place, tree in trees() for n in ast.walk(tree) if isinstance(n, ast.Global)]
    assert found == []


def test_few_handlers_catch_everything() -> None:
    """Only where a process ends may anything be caught, to be recorded; ruff (BLE) asks for the reason there."""
    handlers = (
        (place, node) for place, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)
    )
    found = [f"{place}:{node.lineno}" for place, node in handlers if broad(node)]
    assert len(found) <= BROAD_HANDLERS, found


def imported_modules(module: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of the package that ``module`` imports, anywhere in its source but under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return (found & known) - {module}


def test_no_import_cycles() -> None:
    names = {place: re.sub(r"(/__init__)?\.py$", "", place).replace("/", ".") for place, _ in trees()}
    graph = {names[place]: imported_modules(names[place], tree, set(names.values())) for place, tree in trees()}
    remaining = dict(graph)
    while leaves := [module for module, needs in remaining.items() if not needs & remaining.keys()]:
        for module in leaves:
            del remaining[module]
    assert sorted(remaining) == [], "modules in or above an import cycle"


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    absolute = re.compile(rb"(?<![\w./*-])/(?:work|home|Users|root|mnt|scratch|tmp)/[\w.-]+")
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in tracked_files()
        for match in absolute.finditer(path.read_bytes())
    ]
    assert found == []
