"""How hand-written keys become the dotted keys of a cell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ablate.algorithms.base import JUDGES
from ablate.catalogs.judges import read_judge
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.sections import SCALARS, SECTIONS, SHORTHANDS, Scalar, cell_keys, parameter_hint

COUNTS = {"seed": 0, "rounds": 1}
"""Keys that stand alone and are whole numbers, with the least they can be; others are names."""


def dotted(written: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested mappings as dotted keys: ``{dpo: {beta: [0.1, 0.2]}}`` is the axis ``dpo.beta``.

    A mapping that is a policy, a reward or an annotator is one value.
    """
    for key, value in written.items():
        if isinstance(value, Mapping) and value and key not in ("policy", *JUDGES):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_list(value: Any) -> Sequence[Any]:
    """Return a list as it is, and a single value as a list of it."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]


def flatten(own: Collection[str], key: str, value: Any, place: Location) -> dict[str, Scalar]:
    """Return ``value`` under dotted keys: a mapping opens a section, a string may be a shorthand.

    ``own`` are keys that cells have beside those of :func:`cell_keys`. Raises SpecError at ``place``.
    """
    if key in JUDGES:
        value = read_judge(key, value, lambda *path: place)
    if isinstance(value, Mapping):
        if not value:
            raise SpecError(f"{key} is an empty mapping", location=place)
        flat: dict[str, Scalar] = {}
        for name, item in value.items():
            flat.update(flatten(own, f"{key}.{name}", item, place))
        return flat
    key = known_key(own, key, "axis", place)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise SpecError(f"{key} needs a single value (found {value!r})", location=place)
    if key in COUNTS and (type(value) is not int or value < COUNTS[key]):
        raise SpecError(f"{key} needs a whole number, {COUNTS[key]} or more (found {value!r})", location=place)
    if key in SCALARS and key not in COUNTS and not (isinstance(value, str) or (value is None and key == "prompts")):
        raise SpecError(f"{key} needs a name (found {value!r})", location=place)
    return {key: value}


def known_key(own: Collection[str], key: str, what: str, place: Location) -> str:
    """Return the key that a written one means; raises SpecError at ``place`` with the nearest one."""
    name = SHORTHANDS.get(key, key)
    if name not in own and name not in cell_keys():
        section, _, parameter = name.partition(".")
        known = {*own, *cell_keys()}
        hint = (
            parameter_hint(section, parameter)
            if parameter == "implementation" and section in SECTIONS
            else suggestion(key, [item for item in known if parameter and item.startswith(f"{section}.")] or known)
        )
        raise SpecError(f"unknown {what} {key!r}", location=place, hint=hint)
    return name
