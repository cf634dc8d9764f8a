"""Read a catalog's YAML files into typed entries; an error names file, line, key and the nearest spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from ablate.catalogs.closed import Strict, validated
from ablate.catalogs.origins import KeyPath, Origins
from ablate.errors import Location, SpecError, UnknownNameError

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLoader(_SafeLoader):  # type: ignore[misc]
    """YAML with the floats of its version 1.2: ``5e-7`` is a number, not a string."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


class Named(Strict):
    """Base of a catalog's entries: ``name`` is the entry's key in its file and not written again."""

    name: str

    @classmethod
    def written_keys(cls) -> list[str]:
        """Return the keys that may be written."""
        return [key for key in super().written_keys() if key != "name"]


Entry = TypeVar("Entry", bound=Named)


@dataclass(frozen=True)
class Catalog(Generic[Entry]):
    """Entries by name, and where the keys of each are written."""

    entries: dict[str, Entry]
    places: dict[str, Origins]

    def require(self, name: str, key: str, known: Iterable[str], kind: str = "dataset") -> None:
        """Raise UnknownNameError unless what an entry's ``key`` names, where it names something, is known."""
        wanted = getattr(self.entries[name], key)
        if wanted is not None and wanted not in known:
            raise UnknownNameError(kind, wanted, known, location=self.places[name].locate(key))


def load_folder(folders: Iterable[Path], model: type[Entry]) -> Catalog[Entry]:
    """Read every ``*.yaml`` of ``folders`` as a mapping from entry name to entry.

    Files are read in sorted order; a name defined twice, in one folder or two, is a :class:`SpecError`.
    """
    catalog = Catalog[Entry]({}, {})
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        for name, entry, own in _read_entries(path, model):
            if name in catalog.entries:
                first = catalog.places[name].locate()
                message = f"{name!r} is already defined at {first.file}:{first.line}; give one of the two another name"
                raise SpecError(message, location=own.locate())
            catalog.entries[name], catalog.places[name] = entry, own
    return catalog


def _read_entries(path: Path, model: type[Entry]) -> Iterator[tuple[str, Entry, Origins]]:
    """Yield the entries of one file: a mapping from entry name to keys (``name`` is filled in); it may be empty."""
    values, origins = read_yaml(path)
    if values is None:
        return
    if not isinstance(values, dict):
        raise SpecError("a catalog file is a mapping from entry name to entry", location=origins.locate())
    for name, value in values.items():
        own = origins.inside(name)
        if not isinstance(name, str):
            raise SpecError(f"the name of an entry is text (found {name!r})", location=own.locate())
        if not isinstance(value, dict):
            raise SpecError(f"the entry is {value!r}, not a mapping of keys", location=own.locate())
        if "name" in value:
            raise SpecError("'name' is not written: it is the entry's key", location=own.locate("name"))
        yield name, validated(model, {"name": name, **value}, own.locate), own


def read_yaml(path: Path) -> tuple[Any, Origins]:
    """Parse one YAML file; returns its value and where each of its keys is written.

    Duplicate keys and syntax errors are :class:`SpecError` with file and line.
    """
    try:
        with path.open(encoding="utf-8") as handle:
            loader = YamlLoader(handle)
            node = loader.get_single_node()
            places: dict[KeyPath, Location] = {}
            if node is not None:
                places[()] = Location(str(path), node.start_mark.line + 1)
                _collect_places(node, (), places, str(path))
            return None if node is None else loader.construct_document(node), Origins(str(path), places)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        message = f"not valid YAML: {error.problem or error.context}"
        raise SpecError(message, location=Location(file=str(path), line=line), hint=_quotes(path, line)) from error
    except UnicodeDecodeError as error:
        raise SpecError("not valid UTF-8", location=Location(file=str(path))) from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; a date that does not exist
        message = f"not valid YAML: {str(error).splitlines()[0]}"
        raise SpecError(message, location=Location(file=str(path))) from error
    except RecursionError as error:
        message = "not valid here: nested too deeply, or an alias that contains itself"
        raise SpecError(message, location=Location(file=str(path))) from error


def _quotes(path: Path, line: int | None) -> str | None:
    """Say what a line with brackets within brackets may lack."""
    written = path.read_text(encoding="utf-8").splitlines()[(line or 1) - 1 : line]
    is_nested = any("{" in text and "[" in text for text in written)
    return "in {…} and […] a text with brackets, braces or a comma needs quotes" if is_nested else None


def _collect_places(node: yaml.Node, path: KeyPath, places: dict[KeyPath, Location], file: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError("a key is a single word", location=Location(file, line))
            child = (*path, key_node.value)
            if child in places:
                raise SpecError(
                    f"duplicate key, first written on line {places[child].line}",
                    location=Location(file, line, ".".join(map(str, child))),
                )
            places[child] = Location(file, line)
            _collect_places(value_node, child, places, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[(*path, index)] = Location(file, item.start_mark.line + 1)
            _collect_places(item, (*path, index), places, file)
