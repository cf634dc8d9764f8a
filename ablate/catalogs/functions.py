"""Functions that a researcher names as ``module:function``: where they are written, found without an import."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    """Return the file in which ``module:function`` is written; nothing is imported.

    Looked for in the current folder and on Python's path. A :class:`DataError` at ``place``, where the function is
    named, when there is no such module or the file has no such name; at the file's line when it is not valid Python.
    """
    module, _, function = name.partition(":")
    file = _find(module)
    if file is None:
        raise DataError(
            f"there is no Python file of the module {module!r} of {name}",
            location=place,
            hint=f"looked for {module.replace('.', '/')}.py in the current folder and on PYTHONPATH",
        )
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise DataError(f"not valid Python: {error.msg}", location=Location(str(file), error.lineno)) from error
    names = set(_bound(tree))
    if function not in names and "*" not in names:
        raise UnknownNameError(f"function of {file}", function, names, location=place)
    return file


def _find(module: str) -> Path | None:
    """Return the first file of a module in the order in which Python looks; the current folder comes first."""
    stem = module.replace(".", "/")
    folders = [Path.cwd(), *(Path(entry) for entry in sys.path if entry)]
    places = (folder / name for folder in folders for name in (f"{stem}/__init__.py", f"{stem}.py"))
    return next((place for place in places if place.is_file()), None)


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines, assigns or imports; ``*`` where it imports all of another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
