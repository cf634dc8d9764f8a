"""Methods of a researcher's own in a specification: found under every ``algorithm``, and known from then on by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.algorithms.base import JUDGES, Method
from ablate.algorithms.own import is_own, load_method
from ablate.algorithms.registry import METHODS
from ablate.catalogs.origins import KeyPath, Origins
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.sections import SCALARS, SECTIONS, cell_keys
from ablate.experiment.spec import Experiment


def with_own_methods(written: Any, folder: Path, origins: Origins, path: KeyPath = ()) -> Any:
    """Return a specification with the names of own methods where it says where they are written.

    ``algorithm: ./mine.py:METHOD`` becomes ``algorithm: mine``, wherever a mapping has that key; from then on ``mine``
    is a method as any other is. Paths are relative to ``folder``.
    """
    if isinstance(written, Mapping):
        return {
            key: _adopted(value, folder, origins, (*path, key))
            if key == "algorithm"
            else with_own_methods(value, folder, origins, (*path, key))
            for key, value in written.items()
        }
    if isinstance(written, list):
        return [with_own_methods(item, folder, origins, (*path, index)) for index, item in enumerate(written)]
    return written


def _adopted(value: Any, folder: Path, origins: Origins, path: KeyPath) -> Any:
    if isinstance(value, list):
        return [_adopted(item, folder, origins, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or not is_own(value):
        return value
    place = origins.locate(*path)
    method = load_method(value, folder, place)
    adopt(method, place)
    return method.name


def adopt(method: Method, place: Location | None = None) -> None:
    """Know a method under its name, beside ablate's own, and its section; raises SpecError for a name that is taken."""
    known = METHODS.get(method.name)
    is_taken = known is not None and (known.own_code is None or _is_another(known, method))
    if is_taken or (known is None and method.name in {*SCALARS, *SECTIONS, *Experiment.model_fields}):
        other = f"the method {known.title}" if known is not None else "a key of specifications"
        raise SpecError(f"its name, {method.name!r}, is that of {other}", location=place, hint="give it another name")
    if unknown := sorted(method.reads - {*SCALARS, "reward_model"}):
        hint = suggestion(unknown[0], (*SCALARS, "reward_model"))
        raise SpecError(f"{method.title} reads {unknown[0]!r}, which is no axis", location=place, hint=hint)
    if method.judge not in (None, *JUDGES):
        hint = suggestion(str(method.judge), JUDGES)
        raise SpecError(f"{method.title} is judged by {method.judge!r}, which is no axis", location=place, hint=hint)
    for name in filter(None, (method.rounds, method.reward_model_if and method.reward_model_if[0])):
        if name not in method.parameters.model_fields:
            hint = suggestion(name, method.parameters.model_fields)
            raise SpecError(f"the parameters of {method.title} have no {name!r}", location=place, hint=hint)
    METHODS[method.name] = method
    SECTIONS[method.name] = method.parameters
    cell_keys.cache_clear()


def _is_another(known: Method, method: Method) -> bool:
    """Whether two own methods of one name are written in different places: an edited file is the same method."""
    assert known.own_code is not None and method.own_code is not None
    return known.own_code.step != method.own_code.step
