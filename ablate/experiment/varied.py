"""Sets that cells have as their own: variants in ``datasets:`` whose text takes the value of an axis, ``${axis}``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablate.experiment.keys import dotted
from ablate.experiment.sections import SHORTHANDS, Scalar, cell_keys

_TAKEN = re.compile(r"\$\{([\w.-]+)\}")


@dataclass(frozen=True)
class VariedSet:
    """A variant as it is written, and the axes whose values it takes, in the order in which it names them."""

    name: str
    text: Mapping[str, Any]
    axes: tuple[str, ...]

    def at(self, values: Mapping[str, Scalar]) -> OwnSet:
        """Return the set at values of its axes."""
        own = OwnSet(f"{self.name}({' '.join(f'{axis}={values[axis]}' for axis in self.axes)})")
        own.written, own.text = self.name, _filled(self.text, values)
        return own


class OwnSet(str):
    """A set of certain cells: as a string a name with its values, ``name(axis=value)``.

    ``written`` is the name in the specification, ``text`` the variant with the values in place.
    """

    written: str
    text: Mapping[str, Any]


@dataclass(frozen=True)
class VariedSets:
    """The sets of a specification that take values of axes, by name; ``made`` are those that cells have so far."""

    by_name: Mapping[str, VariedSet] = field(default_factory=dict)
    made: dict[str, OwnSet] = field(default_factory=dict)

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes that only sets take the values of: they are no keys of a cell otherwise, and undotted."""
        taken = (axis for varied in self.by_name.values() for axis in varied.axes)
        return frozenset(axis for axis in taken if "." not in axis) - cell_keys()

    def at(self, name: str, values: Mapping[str, Scalar]) -> OwnSet:
        """Return the set called ``name`` at values of its axes, the same one for the same values."""
        own = self.by_name[name].at(values)
        return self.made.setdefault(str(own), own)


def hold_axes(written: DictConfig) -> dict[str, tuple[str, ...]]:
    """Keep ``${axis}`` in ``datasets`` from being resolved, for the axes that the grid's blocks or a sweep write.

    Returns the names of the sets that take the value of an axis, with the axes.
    """
    raw: Any = OmegaConf.to_container(written, resolve=False)
    axes, held = frozenset((*_axes(raw.get("grid")), *_searched(raw.get("sweep")))), dict[str, tuple[str, ...]]()
    for name, variant in raw["datasets"].items() if isinstance(raw.get("datasets"), Mapping) else ():
        taken = dict.fromkeys(axis for text in _strings(variant) for axis in _TAKEN.findall(text) if axis in axes)
        if taken:
            held[name] = tuple(taken)
            written["datasets"][name] = _held(variant, taken)
    return held


def take_varied(resolved: dict[str, Any], held: Mapping[str, tuple[str, ...]]) -> VariedSets:
    """Take the sets that hold axes out of a resolved specification."""
    if not held:
        return VariedSets()
    datasets = resolved["datasets"]
    return VariedSets({name: VariedSet(name, datasets.pop(name), axes) for name, axes in held.items()})


def _axes(grid: Any) -> Iterator[str]:
    for block in grid if isinstance(grid, list) else ():
        for key, _ in dotted(block) if isinstance(block, Mapping) else ():
            name = key.removeprefix("zip.")
            yield from (name, SHORTHANDS.get(name, name))


def _searched(sweep: Any) -> Iterator[str]:
    search = sweep.get("search") if isinstance(sweep, Mapping) else None
    yield from (str(key) for key in search or () if isinstance(search, Mapping))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _held(value: Any, axes: Mapping[str, None]) -> Any:
    return _mapped(value, lambda text: _TAKEN.sub(lambda m: f"\\{m[0]}" if m[1] in axes else m[0], text))


def _filled(value: Any, values: Mapping[str, Scalar]) -> Any:
    def fill(text: str) -> Any:
        whole = _TAKEN.fullmatch(text)
        if whole and whole[1] in values:
            return values[whole[1]]
        return _TAKEN.sub(lambda m: str(values[m[1]]) if m[1] in values else m[0], text)

    return _mapped(value, fill)


def _mapped(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
