"""YAML with the line of every key, so that a wrong key of a suite is named by file and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ablate.catalogs.loading import read_yaml
from ablate.errors import Location, SpecError, suggestion

KeyPath = tuple[Any, ...]


@dataclass(frozen=True)
class Located:
    """A value read from YAML and the 1-based line of each path in it; ``prefix`` is where it stands in the file."""

    value: Any
    lines: dict[KeyPath, int]
    file: Path
    prefix: KeyPath = ()

    def at(self, path: KeyPath) -> Location:
        """Where ``path`` is written; the nearest parent that is."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        key = ".".join(str(part) for part in (*self.prefix, *path))
        return Location(file=str(self.file), line=self.lines.get(known), key=key or None)

    def child(self, key: Any) -> Located:
        """The value under ``key``, or an empty mapping."""
        lines = {path[1:]: line for path, line in self.lines.items() if path[:1] == (key,)}
        value = self.value.get(key)
        return Located({} if value is None else value, lines, self.file, (*self.prefix, key))

    def with_value(self, key: str, value: Any) -> Located:
        """A copy whose mapping has ``key`` (unless it is given already)."""
        return Located({key: value} | self.value, self.lines, self.file, self.prefix)


def merge(base: Located, own: Located) -> Located:
    """``own`` over ``base``: mappings merge key by key, anything else is replaced."""
    return Located(_deep(base.value, own.value), base.lines | own.lines, own.file, own.prefix)


def _deep(base: Any, own: Any) -> Any:
    if isinstance(base, dict) and isinstance(own, dict):
        return base | {key: _deep(base[key], value) if key in base else value for key, value in own.items()}
    return own


def read_located(path: Path) -> Located:
    """Read a YAML mapping; raises ``SpecError`` for bad YAML, a duplicate key or another kind of value."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError("a suite file must be a mapping", location=Location(file=str(path), line=1))
    return Located(value, {(): 1, **lines}, path)


def located_error(located: Located, model: type[BaseModel], error: ValidationError) -> SpecError:
    """A complaint of pydantic as an error with file, line, key and what is allowed.

    An unknown key comes before a missing one: most often they are one misspelt key.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = tuple(first["loc"])
    context = first.get("ctx") or {}
    message, hint = str(first["msg"]), None
    if first["type"] == "extra_forbidden":
        message = f"unknown key {path[-1]!r}"
        hint = suggestion(str(path[-1]), _fields_at(model, path[:-1]))
    elif first["type"] == "missing":
        message = f"key {path[-1]!r} is missing"
    elif first["type"] == "literal_error":
        message = f"{first['input']!r} is not allowed"
        hint = suggestion(str(first["input"]), [part.strip(" '") for part in _alternatives(str(context["expected"]))])
    elif "known" in context:
        hint = suggestion(str(context.get("key", context["name"])), context["known"])
        if first["type"] == "option":
            path = (*path, "options")
        elif not path:
            path = (context["kind"],)
    return SpecError(message, location=located.at(path), hint=hint)


def _alternatives(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Fields that a mapping at ``path`` may have."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)]
        if inner:
            model = inner[0]
    return sorted(model.model_fields)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
