"""Which keys a trial has, and their values: from the declared ranges to what Optuna suggests and back to cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from ablate.algorithms.registry import METHODS
from ablate.errors import SpecError, suggestion
from ablate.experiment.keys import as_list, dotted
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import Scalar
from ablate.experiment.sweep import Range, Sweep

Values = Mapping[str, Scalar]
Block = Mapping[str, Any]


class Space:
    """The searched keys of one experiment, those that others depend on first."""

    def __init__(self, loaded: LoadedExperiment, sweep: Sweep) -> None:
        """Read the ranges; raises SpecError for a key that cells do not have, or that the grid fixes."""
        self._loaded = loaded
        self.blocks: tuple[Block, ...] = tuple(dict(dotted(block)) for block in loaded.experiment.grid)
        known = {key: self._known(key) for key in sweep.search}
        self.ranges: dict[str, Range] = {}
        for key in sorted(known, key=lambda key: "." in known[key] or bool(sweep.search[key].when)):
            self._check_conditions(key, sweep.search[key])
            self.ranges[known[key]] = sweep.search[key]
        for key in self.ranges:
            self._check_is_read(key)
        for index, start in enumerate(sweep.start):
            self._check_start(index, start)

    def suggest(self, trial: optuna.Trial) -> dict[str, Scalar]:
        """Return a value for every key that applies; what the trial has already is kept."""
        values: dict[str, Scalar] = {}
        for key, given in self.ranges.items():
            if any(self._applies(key, block, values) for block in self.blocks):
                values[key] = _suggest(trial, key, given)
        return values

    def cells(self, values: Values) -> list[dict[str, Any]]:
        """Return the grid's blocks with the values of one trial; a block has those alone that apply to it."""
        return [
            {**block, **{key: value for key, value in values.items() if self._applies(key, block, values)}}
            for block in self.blocks
        ]

    def corners(self) -> list[dict[str, Scalar]]:
        """Return trials that together have every choice, and the ends of every range of numbers."""
        corners: list[dict[str, Scalar]] = [{}]
        for key, given in self.ranges.items():
            if given.choice is not None and "." not in key:  # what other keys may depend on: all combinations
                corners = [{**corner, key: value} for corner in corners for value in given.choice]
        most = max(len(given.ends) for given in self.ranges.values())
        free = {key: given.ends for key, given in self.ranges.items() if key not in corners[0]}
        spread = [{key: ends[min(i, len(ends) - 1)] for key, ends in free.items()} for i in range(most if free else 1)]
        found = []
        for corner in corners:
            for values in spread:
                whole = {**corner, **values}
                applying = {key for key in whole if any(self._applies(key, block, whole) for block in self.blocks)}
                found.append({key: value for key, value in whole.items() if key in applying})
        return found

    def _applies(self, key: str, block: Block, values: Values) -> bool:
        """Tell whether cells of a block read ``key``: its method's section, and the conditions of its range."""
        for name, wanted in self._conditions(key).items():
            here = [values[name]] if name in values else as_list(block.get(name, self._fixed(name)))
            if not set(here) & set(as_list(wanted)):
                return False
        return True

    def _conditions(self, key: str) -> dict[str, Any]:
        section = key.partition(".")[0]
        conditions: dict[str, Any] = dict(self.ranges[key].when if key in self.ranges else {})
        if "." in key and section in METHODS:
            conditions.setdefault("algorithm", section)
        return conditions

    def _could_be(self, name: str, wanted: Any, block: Block) -> bool:
        if name not in self.ranges:
            here = as_list(block.get(name, self._fixed(name)))
        elif (choice := self.ranges[name].choice) is None:
            return True  # some value of a range of numbers
        else:
            here = list(choice)
        return bool(set(here) & set(as_list(wanted)))

    def _check_is_read(self, key: str) -> None:
        conditions = self._conditions(key)
        if any(all(self._could_be(name, value, block) for name, value in conditions.items()) for block in self.blocks):
            return
        wanted = " and ".join(f"{name} {' or '.join(map(str, as_list(value)))}" for name, value in conditions.items())
        place = self._loaded.origins.locate("sweep", "search", key)
        raise SpecError(f"no trial has {key}: it is of cells with {wanted}", location=place)

    def _fixed(self, name: str) -> Any:
        section, dot, rest = name.partition(".")
        written = getattr(self._loaded.experiment, section, None)
        return written.get(rest) if dot and isinstance(written, Mapping) else written

    def _known(self, key: str) -> str:
        place = self._loaded.origins.locate("sweep", "search", key)
        known = self._loaded.known_key(key, "searched key", place)
        for index, block in enumerate(self.blocks):
            if known in block or key in block:
                there = self._loaded.origins.locate("grid", index, key)
                raise SpecError(f"{key} is searched, and an axis of the grid at {there}", location=place)
        return known

    def _check_conditions(self, key: str, given: Range) -> None:
        for name in given.when:
            place = self._loaded.origins.locate("sweep", "search", key, "when", name)
            known = self._loaded.known_key(name, "key", place)
            in_grid = any(known in block for block in self.blocks) or self._fixed(known) is not None
            if known not in self.ranges and not in_grid:
                hint = "name an axis of the grid, or a searched key that depends on none"
                raise SpecError(f"{key} depends on {name}, which no trial has", location=place, hint=hint)

    def _check_start(self, index: int, start: Values) -> None:
        for key, value in start.items():
            place = self._loaded.origins.locate("sweep", "start", index, key)
            if key not in self.ranges:
                raise SpecError(f"{key} is not searched", location=place, hint=suggestion(key, self.ranges))
            if not _contains(self.ranges[key], value):
                raise SpecError(f"{value!r} is outside of {key}'s range", location=place)


def _suggest(trial: optuna.Trial, key: str, given: Range) -> Scalar:
    if given.choice is not None:
        chosen: Scalar = trial.suggest_categorical(key, given.choice)
        return chosen
    low, high = given.bounds
    if given.int is not None:
        return trial.suggest_int(key, int(low), int(high), step=int(given.step or 1))
    return trial.suggest_float(key, low, high, log=given.log is not None, step=given.step)


def _contains(given: Range, value: Scalar) -> bool:
    if given.choice is not None:
        return value in given.choice
    low, high = given.bounds
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return False
    steps = (value - low) / (given.step or 1)
    return (given.int is None and given.step is None) or math.isclose(steps, round(steps), abs_tol=1e-9)


def spelled(values: Sequence[tuple[str, Scalar]]) -> str:
    """Return values as ``key=value`` words, numbers with four digits."""
    return " ".join(f"{key}={f'{value:.4g}' if isinstance(value, float) else value}" for key, value in values)
