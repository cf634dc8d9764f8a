"""Code of a researcher's own, ``module:name`` or ``./file.py:name``: where it is written, and how it is imported."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ablate.catalogs.digests import sha256_file
from ablate.errors import DataError, Location, UnknownNameError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_function(name: str) -> bool:
    """Whether a name is ``module:function`` (dots inside the module's), not one of ablate's own."""
    return _NAME.fullmatch(name) is not None


def checked_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a function; ValueError unless they are what JSON can hold, for they are identity."""
    try:
        same = json.loads(json.dumps(options, allow_nan=False)) == options
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the options of a function are text, numbers, truth values, lists and mappings: {error}"
        ) from error
    if not same:
        raise ValueError("the keys of a function's options are text")
    return options


def source_file(name: str, place: Location | None = None) -> Path:
    """Return the file in which ``module:name`` or ``path/to/file.py:name`` is written; nothing is imported.

    A module is looked for in the current folder and on Python's path. A :class:`DataError` at ``place``, where it is
    named, when there is no such file or the file has no such name; at the file's line when it is not valid Python.
    """
    module, _, attribute = name.rpartition(":")
    file = _named_file(module, name, place)
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise DataError(f"not valid Python: {error.msg}", location=Location(str(file), error.lineno)) from error
    names = set(_bound(tree))
    if attribute not in names and "*" not in names:
        raise UnknownNameError(f"function of {file}", attribute, names, location=place)
    return file


def import_own(name: str, what: str, *, digest: str | None = None, place: Location | None = None) -> Any:
    """Return what ``name`` is, imported; ``digest`` is the sha256 that its file was planned with.

    Raises DataError, which says ``what`` it should have been, when it can't be imported, is another module than the
    file that was found, or that file has changed.
    """
    file = source_file(name, place)
    if digest is not None and sha256_file(file) != digest:
        raise DataError(
            f"{file} is not the file this stage was planned with",
            hint=f"restore it, or plan again: what {what} makes may differ",
        )
    module, _, attribute = name.rpartition(":")
    try:
        loaded = _import_file(file) if module.endswith(".py") else _import_module(module)
    except Exception as error:  # whatever the researcher's module raises while it is imported
        raise DataError(f"can't import {what} {name}: {type(error).__name__}: {error}", location=place) from error
    if loaded.__file__ is None or not file.samefile(loaded.__file__):
        raise DataError(f"{module} is {loaded.__file__}, not {file}", hint="give your module another name")
    if not hasattr(loaded, attribute):
        raise DataError(f"{file} has no {attribute!r} once it is imported", location=place)
    return getattr(loaded, attribute)


def _import_module(module: str) -> ModuleType:
    if (folder := str(Path.cwd())) not in sys.path:  # an installed command starts without it
        sys.path.insert(0, folder)
    return importlib.import_module(module)


def _import_file(file: Path) -> ModuleType:
    """Return a file as a module of its own, under a name that its path and its content give it."""
    content = file.resolve().as_posix().encode() + file.read_bytes()
    name = f"{file.stem}_{hashlib.sha256(content).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _named_file(module: str, name: str, place: Location | None) -> Path:
    if module.endswith(".py"):
        if not (file := Path(module)).is_file():
            raise DataError(f"there is no file {file} for {name}", location=place)
        return file
    if not module:
        raise DataError(
            f"{name.removeprefix(':')!r} names no function", location=place, hint="write module:name or ./file.py:name"
        )
    if (found := _find(module)) is None:
        raise DataError(
            f"there is no Python file of the module {module!r} of {name}",
            location=place,
            hint=f"looked for {module.replace('.', '/')}.py in the current folder and on PYTHONPATH",
        )
    return found


def _find(module: str) -> Path | None:
    """Return the first file of a module in the order in which Python looks; the current folder comes first."""
    stem = module.replace(".", "/")
    folders = [Path.cwd(), *(Path(entry) for entry in sys.path if entry)]
    places = (folder / name for folder in folders for name in (f"{stem}/__init__.py", f"{stem}.py"))
    return next((place for place in places if place.is_file()), None)


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines, assigns or imports; ``*`` where it imports all of another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
