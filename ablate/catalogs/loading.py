"""Read a catalog's YAML files into typed entries; an error names file, line, key and the nearest spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ablate.errors import Location, SpecError, suggestion

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_SafeLoader):  # type: ignore[misc]
    """YAML with the floats of its version 1.2: ``5e-7`` is a number, not a string."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


class Closed(BaseModel):
    """Base of what is written by hand: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Strict(Closed):
    """Base of datasets and models: no value is taken for one of another type."""

    model_config = ConfigDict(strict=True)


Entry = TypeVar("Entry", bound=Strict)
Lines = dict[tuple[str | int, ...], int]


def load_folder(folders: Iterable[Path], model: type[Entry]) -> dict[str, Entry]:
    """Read every ``*.yaml`` of ``folders`` as a mapping from entry name to entry.

    Files are read in sorted order; a name defined twice, in one folder or two, is a :class:`SpecError`.
    """
    entries: dict[str, Entry] = {}
    origin: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        for name, entry in load_file(path, model).items():
            if name in entries:
                raise SpecError(
                    f"{name!r} is already defined in {origin[name]}", location=Location(file=str(path), key=name)
                )
            entries[name], origin[name] = entry, path
    return entries


def load_file(path: Path, model: type[Entry]) -> dict[str, Entry]:
    """Read one catalog file: a mapping from entry name to the entry's keys (``name`` is filled in)."""
    values, lines = read_yaml(path)
    if not isinstance(values, dict):
        raise SpecError("a catalog file is a mapping from entry name to entry", location=Location(file=str(path)))
    entries = {}
    for name, value in values.items():
        location = Location(file=str(path), line=lines.get((name,)), key=str(name))
        if not isinstance(value, dict):
            raise SpecError(f"the entry is {value!r}, not a mapping of keys", location=location)
        if "name" in value:
            raise SpecError("'name' is not written: it is the entry's key", location=location)
        try:
            entries[name] = model.model_validate({"name": name, **value})
        except ValidationError as error:
            raise spec_error(error, model, path, lines, (name,)) from error
    return entries


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Parse one YAML file; returns its value and, for every key path, the 1-based line of that key.

    Duplicate keys and syntax errors are :class:`SpecError` with file and line.
    """
    try:
        with path.open(encoding="utf-8") as handle:
            loader = YamlLoader(handle)
            node = loader.get_single_node()
            if node is None:
                return None, {}
            lines: Lines = {}
            _collect_lines(node, (), lines, path)
            return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        message = f"not valid YAML: {error.problem or error.context}"
        raise SpecError(message, location=Location(file=str(path), line=line)) from error
    except UnicodeDecodeError as error:
        raise SpecError("not valid UTF-8", location=Location(file=str(path))) from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; a date that does not exist
        message = f"not valid YAML: {str(error).splitlines()[0]}"
        raise SpecError(message, location=Location(file=str(path))) from error
    except RecursionError as error:
        message = "not valid here: nested too deeply, or an alias that contains itself"
        raise SpecError(message, location=Location(file=str(path))) from error


def spec_error(
    error: ValidationError, model: type[BaseModel], path: Path, lines: Lines, prefix: tuple[str | int, ...] = ()
) -> SpecError:
    """Turn the most telling of pydantic's errors into a :class:`SpecError` that names file, line and key."""
    # A misspelt key is reported twice, as unknown and as missing: the unknown one names what was written.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    key, known = _written_key(first["loc"], prefix, lines)
    message, hint = first["msg"].removeprefix("Value error, "), None
    if first["type"] == "extra_forbidden":
        message, hint = f"unknown key {key[-1]!r}", suggestion(str(key[-1]), _allowed_keys(model, first["loc"]))
    elif first["type"] == "missing":
        message = f"{first['loc'][-1]!r} is required"
    elif first["type"] == "literal_error":
        message = f"{first['input']!r} is not allowed"
        hint = suggestion(str(first["input"]), _options(first["ctx"]["expected"]))
    elif "input" in first and not isinstance(first["input"], Mapping):
        message = f"{message} (found {first['input']!r})"
    dotted = ".".join(str(part) for part in key)
    return SpecError(message, location=Location(file=str(path), line=known, key=dotted), hint=hint)


def _collect_lines(node: yaml.Node, key: tuple[str | int, ...], lines: Lines, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError("a key is a single word", location=Location(file=str(path), line=line))
            child = (*key, key_node.value)
            if child in lines:
                raise SpecError(
                    f"duplicate key, first written on line {lines[child]}",
                    location=Location(file=str(path), line=line, key=".".join(map(str, child))),
                )
            lines[child] = line
            _collect_lines(value_node, child, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*key, index)] = item.start_mark.line + 1
            _collect_lines(item, (*key, index), lines, path)


def _written_key(
    loc: Sequence[str | int], prefix: tuple[str | int, ...], lines: Lines
) -> tuple[tuple[str | int, ...], int | None]:
    # pydantic's location also names union members, which nobody wrote: keep the parts that are in the file.
    key = prefix
    for position, part in enumerate(loc):
        if (*key, part) in lines or position == len(loc) - 1:
            key = (*key, part)
    line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), None)
    return key, line


def _allowed_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in loc[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        current = next((kind for kind in _model_types(field.annotation)), current)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items() if name != "name"]


def _model_types(annotation: Any) -> Iterable[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _model_types(argument)


def _options(expected: str) -> list[str]:
    return [part.strip().strip("'\"") for part in expected.replace(" or ", ",").split(",") if part.strip()]
