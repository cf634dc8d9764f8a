"""Which keys a trial has, and their values: from the declared ranges to what Optuna suggests and back to cells."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
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

    def __init__(self, loaded: LoadedExperiment, sweep: Sweep, blocks: Sequence[Block] | None = None) -> None:
        """Read the ranges; raises SpecError for a key that cells do not have, that the grid fixes or no trial reads.

        ``blocks`` are searched in place of the grid's.
        """
        self._loaded, self._section = loaded, sweep.section
        written = loaded.experiment.grid if blocks is None else blocks
        self.blocks: tuple[Block, ...] = tuple(dict(dotted(block)) for block in written)
        known = {key: self._known(key) for key in sweep.search}
        self.ranges: dict[str, Range] = {}
        for key in sorted(known, key=lambda key: ("." in known[key], bool(sweep.search[key].when))):
            when = self._conditions_of(key, sweep.search[key], known.values())
            self.ranges[known[key]] = sweep.search[key].model_copy(update={"when": when})
            if not any(self._may_apply(known[key], block) for block in self.blocks):
                place = loaded.origins.locate(self._section, "search", key)
                raise SpecError(f"{key} is searched, and no trial reads it", location=place)
        for index, start in enumerate(sweep.start):
            self._check_start(index, start)

    def suggest(self, trial: optuna.Trial) -> dict[str, Scalar]:
        """Return a value for every key that applies; what the trial has already is kept."""
        values: dict[str, Scalar] = {}
        for key, given in self.ranges.items():
            if any(self._applies(key, block, values) for block in self.blocks):
                values[key] = _suggest(trial, key, given)
        return values

    def is_whole(self, values: Values) -> bool:
        """Tell whether there is a value for every key that applies: they are drawn one after the other."""
        applying = (key for key in self.ranges if any(self._applies(key, block, values) for block in self.blocks))
        return all(key in values for key in applying)

    def cells(self, values: Values) -> list[dict[str, Any]]:
        """Return the grid's blocks with the values of one trial; a block has those alone that apply to it."""
        return [
            {**block, **{key: value for key, value in values.items() if self._applies(key, block, values)}}
            for block in self.blocks
        ]

    def chosen(self, values: Values) -> tuple[Scalar, ...]:
        """Return what a trial is about where that is searched: the values of axes that are chosen among, as methods."""
        return tuple(value for key, value in values.items() if self._is_about(key))

    def _is_about(self, key: str) -> bool:
        return self.ranges[key].choice is not None and "." not in key

    def corners(self) -> list[dict[str, Scalar]]:
        """Return trials that together have every choice, and the ends of every range of numbers."""
        corners: list[dict[str, Scalar]] = [{}]
        for key, given in self.ranges.items():
            if self._is_about(key):  # what other keys may depend on: all combinations
                corners = [{**corner, key: value} for corner in corners for value in given.choice or ()]
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
        """Tell whether cells of a block read ``key``, given the values of a trial."""
        return all(
            set([values[name]] if name in values else self._written(name, block)) & set(as_list(wanted))
            for name, wanted in self._conditions(key).items()
        )

    def _may_apply(self, key: str, block: Block) -> bool:
        """Tell whether cells of a block may read ``key`` in some trial."""
        for name, wanted in self._conditions(key).items():
            searched = self.ranges.get(name)
            if searched is not None and searched.choice is None:
                continue  # a number of a range
            here = self._written(name, block) if searched is None else searched.choice or ()
            if not set(here) & set(as_list(wanted)):
                return False
        return True

    def _conditions(self, key: str) -> dict[str, Any]:
        """Return what cells that read ``key`` have: the method of its section, and what its range depends on."""
        section = key.partition(".")[0]
        conditions: dict[str, Any] = dict(self.ranges[key].when if key in self.ranges else {})
        if "." in key and section in METHODS:
            conditions.setdefault("algorithm", section)
        return conditions

    def _written(self, name: str, block: Block) -> Sequence[Any]:
        return as_list(block.get(name, self._fixed(name)))

    def _fixed(self, name: str) -> Any:
        section, dot, rest = name.partition(".")
        written = getattr(self._loaded.experiment, section, None)
        return written.get(rest) if dot and isinstance(written, Mapping) else written

    def _known(self, key: str) -> str:
        place = self._loaded.origins.locate(self._section, "search", key)
        known = self._loaded.known_key(key, "searched key", place)
        for index, block in enumerate(self.blocks):
            if known in block or key in block:
                there = self._loaded.origins.locate("grid", index, key)
                raise SpecError(f"{key} is searched, and an axis of the grid at {there}", location=place)
        return known

    def _conditions_of(self, key: str, given: Range, searched: Collection[str]) -> dict[str, Any]:
        """Return what a range depends on by the keys of cells; raises SpecError for what no trial has before it."""
        when: dict[str, Any] = {}
        for name, wanted in given.when.items():
            place = self._loaded.origins.locate(self._section, "search", key, "when", name)
            known = self._loaded.known_key(name, "key", place)
            fixed = any(known in block for block in self.blocks) or self._fixed(known) is not None
            if known not in self.ranges and (known in searched or not fixed):
                hint = "name an axis of the grid, or a searched key that depends on none"
                what = "is drawn after it" if known in searched else "no trial has"
                raise SpecError(f"{key} depends on {name}, which {what}", location=place, hint=hint)
            when[known] = wanted
        return when

    def _check_start(self, index: int, start: Values) -> None:
        for key, value in start.items():
            place = self._loaded.origins.locate(self._section, "start", index, key)
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
