"""Which cells of a grid are tuned together, by which keys, and the grid with the values that were found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.chains import is_read_by_chain, title_of
from ablate.experiment.grid import SET_KEYS, Cell, Grid, Values, method_reads
from ablate.experiment.keys import as_list, dotted
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import SHORTHANDS, Scalar
from ablate.experiment.sweep import Range, Tune
from ablate.experiment.varied import OwnSet
from ablate.store import file_name

NAMES = SET_KEYS | {"reward_model.init"}
"""Dotted keys that name what rows are about."""

State = Literal["tuned", "open", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What the trials of a group have come to, as the store keeps it.

    ``best`` is the winner's number, ``ties`` are others that reached the same; ``ended`` counts trials by how they
    ended, and ``limited_by`` are the limits that ended them before there were all. ``policies`` are trained in each
    trial; ``cause`` says why there is no winner.
    """

    state: State
    ended: Mapping[str, int]
    policies: int
    values: Values
    result: float | None = None
    best: int | None = None
    ties: Sequence[int] = ()
    cause: str = ""
    limited_by: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class Group:
    """Cells that are equal on the axes that tuning is over; ``search`` are the keys that some of them read."""

    axes: Values
    cells: tuple[Cell, ...]
    search: Mapping[str, Range]

    @property
    def label(self) -> str:
        """The axes as ``key=value`` words, without those that its cells do not have."""
        words = " ".join(f"{axis}={value}" for axis, value in self.axes.items() if value is not None)
        return words or f"no {' or '.join(self.axes)}"

    @property
    def name(self) -> str:
        """The values of its axes as the name of a folder."""
        values = ",".join(str(value) for value in self.axes.values() if value is not None)
        return file_name(re.sub(r"[^\w.,+=@-]+", "_", values)) or "none"

    def at_seed(self, seed: int) -> tuple[Cell, ...]:
        """Return the cells of one trial as they are written: equal ones, but for the seed, once."""
        cells = (replace(cell, values={**cell.values, "seed": seed}) for cell in self.cells)
        return tuple(dict.fromkeys(cells))

    def search_of(self, tune: Tune) -> Tune:
        """Return the search of this group: of its own keys, and of what trials begin with the values of these."""
        start = ({key: value for key, value in item.items() if key in self.search} for item in tune.start)
        return tune.model_copy(update={"search": self.search, "start": tuple(filter(None, start))})

    def found_for(self, cell: Cell, values: Values) -> Values:
        """Return those of a trial's values that are a cell's: it reads the key, and has what that depends on."""
        return {key: value for key, value in values.items() if _reaches(self.search, key, cell, values)}

    def with_values(self, cell: Cell, values: Values) -> Cell:
        """Return a cell with its own of a trial's values."""
        return replace(cell, values={**cell.values, **self.found_for(cell, values)})


def groups_of(loaded: LoadedExperiment, grid: Grid) -> tuple[Group, ...]:
    """Return the groups of cells in the order of the grid; one whose cells read no searched key searches none.

    Raises SpecError for keys that can't be searched beside this grid, and for those that no cell reads.
    """
    tune = loaded.experiment.tune
    assert tune is not None
    over = [_over(loaded, index, axis) for index, axis in enumerate(tune.over)]
    for key in tune.search:
        _check_searched(loaded, grid, key, over)
    members: dict[tuple[Scalar, ...], list[Cell]] = {}
    for cell in grid.cells:
        members.setdefault(tuple(_written(cell.values.get(axis)) for axis in over), []).append(cell)
    groups = tuple(
        Group(dict(zip(over, values, strict=True)), tuple(cells), _reached(loaded, tune, cells))
        for values, cells in members.items()
    )
    for key in tune.search:
        if not any(key in group.search for group in groups):
            place = loaded.origins.locate("tune", "search", key)
            raise SpecError(f"{key} is searched, and no cell of the grid reads it", location=place)
    _check_start(loaded, tune)
    _tell_apart(loaded, groups)
    return groups


@dataclass(frozen=True)
class Tuning:
    """The groups of an experiment with what is known of each, as they stand; ``whole`` is the grid as it is written."""

    tune: Tune
    whole: Grid
    groups: tuple[Group, ...]
    outcomes: Mapping[str, Outcome]
    """By the names of groups; one that is not begun has none."""

    def outcome(self, group: Group) -> Outcome | None:
        """Return what is known of a group: None where none of its trials has been begun, or nothing is searched."""
        return self.outcomes.get(group.name)

    @property
    def searched(self) -> tuple[Group, ...]:
        """The groups that have something to search."""
        return tuple(group for group in self.groups if group.search)

    @property
    def to_go(self) -> tuple[Group, ...]:
        """The groups whose trials have not all ended."""
        return tuple(group for group in self.searched if self._state(group) == "open")

    @property
    def failed(self) -> tuple[Group, ...]:
        """The groups whose trials have all ended and came to nothing."""
        return tuple(group for group in self.searched if self._state(group) == "failed")

    @cached_property
    def of_cell(self) -> Mapping[Cell, Group]:
        """The group of every cell of :attr:`grid`, in the order of the grid."""
        groups = {cell: group for group in self.groups for cell in group.cells}
        return {groups[cell].with_values(cell, self._values(groups[cell])): groups[cell] for cell in self.whole.cells}

    @cached_property
    def grid(self) -> Grid:
        """The grid with the values that were found; cells of groups without any are as they are written."""
        return replace(self.whole, cells=tuple(self.of_cell))

    @property
    def waiting(self) -> Mapping[Cell, str]:
        """The cells of :attr:`grid` that can't be run, each with the reason."""
        return {cell: self.reason(group) for cell, group in self.of_cell.items() if not self._is_settled(group)}

    def reason(self, group: Group) -> str:
        """Return why a group has no values."""
        found = self.outcome(group)
        if found is not None and self._state(group) == "failed":
            return f"its tuning failed: {found.cause}"
        ended = 0 if found is None else sum(found.ended.values())
        return f"its tuning is not finished: {ended} of {group.search_of(self.tune).most} trials have ended"

    def found(self, cell: Cell) -> tuple[int, Values]:
        """Return the number of the group of a cell of :attr:`grid`, and the values that were found for the cell."""
        group = self.of_cell[cell]
        return self._numbers[group.name], group.found_for(cell, self._values(group))

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {group.name: number for number, group in enumerate(self.groups)}

    def as_json(self) -> dict[str, Any]:
        """Return what tables say of the tuning."""
        return {
            "maximise": self.tune.maximise[0],
            "subject_to": {name: bound.model_dump(exclude_none=True) for name, bound in self.tune.subject_to.items()},
            "seed": self.tune.seed,
            "trials": self.tune.trials,
            "over": list(self.groups[0].axes) if self.groups else [],
            "groups": [self._facts(group) for group in self.groups],
        }

    def _facts(self, group: Group) -> dict[str, Any]:
        found = self.outcome(group)
        facts = {"name": group.name, "label": group.label, "axes": dict(group.axes), "search": list(group.search)}
        if not group.search:
            return {**facts, "state": "nothing to search"}
        if found is None:
            return {**facts, "state": "open", "ended": {}, "cause": self.reason(group)}
        settled = self._is_settled(group)
        return {
            **facts,
            "state": self._state(group),
            "ended": dict(found.ended),
            "policies": found.policies,
            "values": dict(found.values),
            "result": found.result,
            "best": found.best,
            "ties": list(found.ties),
            "cause": "" if settled else self.reason(group),
        }

    def _state(self, group: Group) -> State:
        found = self.outcome(group)
        if found is None:
            return "open"
        has_all = sum(found.ended.values()) >= group.search_of(self.tune).most
        return found.state if has_all or found.limited_by == self.tune.limits else "open"

    def _is_settled(self, group: Group) -> bool:
        return not group.search or self._state(group) == "tuned"

    def _values(self, group: Group) -> Values:
        found = self.outcome(group)
        return found.values if found is not None and self._state(group) == "tuned" else {}


def _reaches(search: Mapping[str, Range], key: str, cell: Cell, values: Values) -> bool:
    """Return whether a searched key is one of a cell's: it reads it, and has what the key depends on."""
    when = {SHORTHANDS.get(name, name): wanted for name, wanted in search[key].when.items()}
    return cell.reads(key) and all(
        values.get(name, _written(cell.values.get(name))) in as_list(wanted) for name, wanted in when.items()
    )


def _written(value: Scalar) -> Scalar:
    return value.written if isinstance(value, OwnSet) else value


def _reached(loaded: LoadedExperiment, tune: Tune, cells: Sequence[Cell]) -> dict[str, Range]:
    """Return the searched keys that some of these cells read, those that depend on no other one first."""
    search: dict[str, Range] = {}
    for key, given in sorted(tune.search.items(), key=lambda item: bool(item[1].when)):
        for name in given.when:
            loaded.known_key(name, "key", loaded.origins.locate("tune", "search", key, "when", name))
        fixed = given.model_copy(update={"when": {name: w for name, w in given.when.items() if name not in search}})
        if any(_reaches({key: fixed}, key, cell, {}) for cell in cells):
            search[key] = given
    return {key: search[key] for key in tune.search if key in search}


def _over(loaded: LoadedExperiment, index: int, axis: str) -> str:
    place = loaded.origins.locate("tune", "over", index)
    known = loaded.known_key(axis, "axis", place)
    if known == "seed":
        raise SpecError("trials have one seed, tune.seed: groups can't differ in it", location=place)
    return known


def _check_searched(loaded: LoadedExperiment, grid: Grid, key: str, over: Sequence[str]) -> None:
    """Raise SpecError for a key that can't be searched, or whose value is said elsewhere."""
    place = loaded.origins.locate("tune", "search", key)
    if loaded.known_key(key, "searched key", place) != key or "." not in key or key in NAMES:
        hint = "search parameters, as dpo.beta; what rows are about is an axis of the grid"
        raise SpecError(f"{key} names what is compared: it can't be tuned", location=place, hint=hint)
    if key in grid.axes:
        axis = next(_places(loaded, key))
        raise SpecError(f"{key} is searched, and an axis of the grid at {axis}", location=place)
    if key in over:
        raise SpecError(f"{key} is searched, and what groups are made by: tune.over", location=place)
    for number, rule in enumerate(loaded.experiment.when):
        if key in (name for name, _ in dotted(rule.set)):
            there = replace(loaded.origins.locate("when", number), key=None)
            raise SpecError(f"{key} is searched, and set by a rule of `when` at {there}", location=place)
    for override in loaded.overrides:
        if override.partition("=")[0] == key:
            message = f"{key!r} is tuned, so this override would change no cell"
            raise SpecError(message, location=Location(file=f"override {override!r}"), hint="tune=null tunes nothing")
    _refuse_chains(loaded, grid, key)


def _places(loaded: LoadedExperiment, axis: str) -> Iterator[str]:
    for index, block in enumerate(loaded.experiment.grid):
        for name, _ in dotted(block):
            if name.removeprefix("zip.") == axis:
                yield str(replace(loaded.origins.locate("grid", index, *_parts(block, name)), key=None))


def _parts(block: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return (name,) if name in block else tuple(name.split("."))


def _refuse_chains(loaded: LoadedExperiment, grid: Grid, key: str) -> None:
    """Raise SpecError where the policy that a cell starts from is trained with a searched key: it is not tuned."""
    for cell in grid.cells:
        if is_read_by_chain(cell.policy, key, cell.method.name, method_reads):
            raise SpecError(
                f"{key} is searched, and the policy {title_of(cell.policy)}, from which cells start, is made with it",
                location=loaded.origins.locate("tune", "search", key),
                hint=f"tuning does not reach policies of other cells: write {key} in its from",
            )


def _check_start(loaded: LoadedExperiment, tune: Tune) -> None:
    for index, start in enumerate(tune.start):
        for key in start:
            if key not in tune.search:
                place = loaded.origins.locate("tune", "start", index, key)
                raise SpecError(f"{key} is not searched", location=place, hint=suggestion(key, tune.search))


def _tell_apart(loaded: LoadedExperiment, groups: Sequence[Group]) -> None:
    names: dict[str, Group] = {}
    for group in groups:
        other = names.setdefault(group.name, group)
        if other is not group:
            message = f"the groups {other.label} and {group.label} have one name, {group.name}"
            raise SpecError(message, location=loaded.origins.locate("tune", "over"))
