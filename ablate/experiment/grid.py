"""From an Experiment to its cells: blocks, products, zips, conditionals, projection, excludes. A pure function."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.algorithms.base import JUDGES, LEARNT, Method
from ablate.algorithms.registry import METHODS, find_method
from ablate.catalogs.closed import validated
from ablate.catalogs.judges import read_judge
from ablate.catalogs.origins import Origins
from ablate.catalogs.rewards import REWARD_MODEL, REWARDS, find_reward
from ablate.errors import Location, SpecError
from ablate.experiment.chains import Chain, is_read_by_chain, read_policy, root_of
from ablate.experiment.keys import as_list, dotted
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import SCALARS, SECTIONS, SHORTHANDS, DataSection, Scalar, parameter_hint
from ablate.experiment.varied import OwnSet

Values = Mapping[str, Scalar]
Section = tuple[tuple[str, Scalar], ...]
"""A section's keys and values, sorted: hashable, so that equal requests are answered once."""
ALWAYS_READ = frozenset({"policy", "algorithm", "seed", "rounds"})
SHARED_SECTIONS = frozenset({"data", "pretrain", "sft"})
"""Sections that describe what every method starts from."""
DERIVED = {"reward_model.init": "policy", "reward_model.dataset": "dataset", "prompts": "dataset"}
"""Keys that, written nowhere, take another key's value."""
SET_KEYS = frozenset({"dataset", "prompts", "reward_model.dataset", "sft.dataset"})
"""Keys that name a set."""
OWN_START = "sft"
"""The reference of a method whose specification names none: the model that its training starts from."""
DEFAULTS = {"reference": OWN_START, "reward": REWARD_MODEL, "annotator": REWARD_MODEL}
"""Keys that, written nowhere, have this value."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid: every key its method reads, dotted; axes of other blocks at their default.

    Two cells are equal when these values are; ``block`` says which block of the grid wrote it first.
    """

    values: Values
    block: int

    def __hash__(self) -> int:
        """Hash what equality compares, but for the block."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash(frozenset(self.values.items()))

    @functools.cached_property
    def method(self) -> Method:
        """The method of this cell."""
        return METHODS[str(self.values["algorithm"])]

    @property
    def policy(self) -> str:
        """The policy it starts from: the name of a model, or a chain."""
        policy = self.values["policy"]
        assert isinstance(policy, str)
        return policy

    @property
    def rounds(self) -> int:
        """How many times the method is run, each from the policy of the round before."""
        rounds = self.values.get("rounds") or own_rounds(self.method, self.values)
        assert isinstance(rounds, int)
        return rounds

    def at_round(self, number: int) -> Cell:
        """Return the cell of this one's round ``number``, from 1."""
        return replace(self, values={**self.values, "rounds": number})

    @property
    def has_reward_model(self) -> bool:
        """Whether a reward model is made for this cell; keys of one may be there for the chain that it starts from."""
        return _has_reward_model(self.method, self.values)

    @property
    def learns_from_set(self) -> bool:
        """Whether its method reads a dataset; a chain may keep the key for itself."""
        return "dataset" in self.method.reads

    @property
    def scored_without_model(self) -> bool:
        """Whether a formula or a verifier scores responses, and nothing is learnt from preferences."""
        method = self.method
        return method.judge is not None and not self.has_reward_model and LEARNT.isdisjoint(method.needs)

    def reads(self, key: str) -> bool:
        """Whether a parameter of a section reaches what the cell's own method runs on; a chain's it does not."""
        section = key.partition(".")[0]
        has_section = section != "sft" or "sft.dataset" in self.values
        return has_section and section in _read_keys(self.method, self.has_reward_model)[1]

    def sections(self) -> dict[str, Section]:
        """Return the keys of every section, without its name."""
        return self._sections

    def own_sections(self) -> dict[str, Section]:
        """Return the sections that the cell's method reads; of those that only its chain reads it may have a part."""
        sections = _read_keys(self.method, self.has_reward_model)[1]
        return {name: section for name, section in self._sections.items() if name in sections}

    @functools.cached_property
    def _sections(self) -> dict[str, Section]:
        found: dict[str, list[tuple[str, Scalar]]] = {}
        for key, value in self.values.items():
            name, dot, rest = key.partition(".")
            if dot:
                found.setdefault(name, []).append((rest, value))
        return {name: tuple(sorted(pairs)) for name, pairs in found.items()}


@dataclass(frozen=True)
class Grid:
    """The cells of an experiment in the order written, and the axes that vary, in the order written."""

    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    fixed: Values


def expand(loaded: LoadedExperiment) -> Grid:
    """Expand the grid: deterministic in order and identity; raises SpecError for a grid that makes no sense."""
    fixed = _fixed_values(loaded)
    policy = fixed.get("policy")
    blocks = [_Axes.read(loaded, index, block, policy) for index, block in enumerate(loaded.experiment.grid)]
    _refuse_idle_overrides(loaded, blocks)
    varied = tuple(dict.fromkeys(key for axes in blocks for key in axes.keys))
    rules, excludes = _Rule.read_all(loaded, policy), _read_excludes(loaded)
    projection = _Projection(loaded, _defaults(varied), "rounds" in varied)
    seen: dict[frozenset[tuple[str, Scalar]], Cell] = {}
    for index, axes in enumerate(blocks):
        used: set[str] = set()
        for assignment in axes.assignments():
            values = {**fixed, **assignment}
            for rule in rules:
                if _matches(projection.keep_read(index, values), rule.condition):
                    rule.apply(values, assignment, index)
            cell = Cell(projection.keep_read(index, values), index)
            used.update(cell.values)
            if not any(_matches(cell.values, condition) for condition in excludes):
                seen.setdefault(frozenset(cell.values.items()), cell)
        _refuse_unread(loaded, index, axes.keys, used)
    if not seen and loaded.experiment.grid:
        raise SpecError("exclude leaves no cell", location=loaded.origins.locate("exclude"))
    return Grid(tuple(seen.values()), varied, fixed)


def related_cell(
    loaded: LoadedExperiment, grid: Grid, cell: Cell, written: Mapping[str, Scalar], origins: Origins
) -> Cell:
    """Return the cell that is like ``cell`` but for the keys ``written`` at ``origins``; the grid may not have it.

    What ``cell`` derives from other keys is derived anew, and rounds are its own; conditionals apply, and never to a
    written key.
    """
    default = grid.fixed.get("policy")
    places: dict[str, Location] = {}
    assignment: dict[str, Scalar] = {}
    for key, value in written.items():
        read = read_policy(value, origins.inside(key), default, loaded.flatten) if key == "policy" else value
        place = written_at(origins, key)
        for name, item in loaded.flatten(key, read, place).items():
            assignment[name], places[name] = item, place
    axes = _Axes.read(loaded, cell.block, loaded.experiment.grid[cell.block], default)
    own = {*grid.fixed, *(key for group in axes.groups for row in group for key, value in row if value is not None)}
    inherited = {key: value for key, value in cell.values.items() if key in own or key not in DERIVED}
    projection = _Projection(loaded, _defaults(grid.axes), "rounds" in grid.axes)
    values = {**grid.fixed, **inherited, "rounds": None, **assignment}
    for rule in _Rule.read_all(loaded, default):
        if _matches(projection.keep_read(cell.block, values), rule.condition):
            values.update({key: value for key, value in rule.set.items() if key not in assignment})
    found = Cell(projection.keep_read(cell.block, values), cell.block)
    unread = next((key for key in assignment if key not in found.values), None)
    if unread is not None:
        raise SpecError(f"{found.method.title} does not read {unread!r}", location=places[unread])
    for name, section in found.own_sections().items():
        _validate_section(name, section, lambda *path: places.get(".".join(path)) or _locate(loaded, cell.block, *path))
    return found


def _refuse_idle_overrides(loaded: LoadedExperiment, blocks: Sequence[_Axes]) -> None:
    """Raise SpecError for an override of a key that every block of the grid writes: no cell would have its value."""
    for override in loaded.overrides:
        written, _, value = override.partition("=")
        key = SHORTHANDS.get(written, written)
        is_taken = written in loaded.interpolated or (key == "policy" and any(axes.has_chains for axes in blocks))
        if not is_taken and blocks and all(key in axes.keys for axes in blocks):
            numbers = ", ".join(str(number) for number in range(1, len(blocks) + 1))
            where = f"block{'s' * (len(blocks) > 1)} {numbers}"
            raise SpecError(
                f"{written!r} is an axis of {where} of the grid, so this override would change no cell",
                location=Location(file=f"override {override!r}"),
                hint=_override_of_blocks(loaded, key, value),
            )


def _override_of_blocks(loaded: LoadedExperiment, key: str, value: str) -> str:
    """Return the overrides that give an axis one value in every block, where a block writes it in one place."""
    found = []
    for index, block in enumerate(loaded.experiment.grid):
        names = [name for name, _ in dotted(block) if SHORTHANDS.get(name, name) == key]
        found += [f"'grid.{index}.{name}={value}'" for name in names]
    if len(found) < len(loaded.experiment.grid):
        return "write the blocks anew: 'grid=[…]'"
    return f"change the grid: {' '.join(found)}"


def validate_sections(loaded: LoadedExperiment, grid: Grid) -> None:
    """Check every section of every cell against its closed model; equal sections are checked once."""
    checked: set[tuple[str, Section]] = set()
    for cell in grid.cells:
        for name, section in cell.own_sections().items():
            if (name, section) in checked:
                continue
            checked.add((name, section))
            _validate_section(name, section, functools.partial(_locate, loaded, cell.block))


def _validate_section(name: str, section: Section, locate: Callable[..., Location]) -> None:
    # Strict: neither a quoted number nor a yes is taken for a number.
    validated(SECTIONS[name], dict(section), functools.partial(locate, name), strict=True)


def written_at(origins: Origins, key: str) -> Location:
    """Return where a key of a cell stands in a mapping of such keys, dotted or nested; else where the mapping does."""
    paths = ((key,), (SHORTHANDS.get(key, key),), tuple(key.split(".")), (key.partition(".")[0],))
    return origins.locate(*next((path for path in paths if origins.has(*path)), ()))


def place_of(loaded: LoadedExperiment, block: int, key: str) -> Location:
    """Return where a cell's value of ``key`` was written: in its block of the grid, else in the file's section.

    A value that is written in neither is the block's.
    """
    shorthand = {long: short for short, long in SHORTHANDS.items()}.get(key)
    section, _, name = key.partition(".")
    candidates = [(key,), (section, name), (shorthand or key,), (section,)]
    for written in candidates:
        for start in (("grid", block), ("grid", block, "zip")):
            place = loaded.origins.places.get((*start, *written))
            if place is not None:
                return Location(file=place.file, line=place.line, key=key)
    path = key.split(".")
    is_written = any(loaded.origins.has(*path[:end]) for end in range(1, len(path) + 1))
    nearest = path if is_written else ("grid", block)
    return replace(loaded.origins.locate(*nearest), key=key)


def _locate(loaded: LoadedExperiment, block: int, *path: str | int) -> Location:
    return place_of(loaded, block, ".".join(map(str, path)))


@dataclass(frozen=True)
class _Axes:
    """The axes of one block: groups of keys that move together, each with its list of settings."""

    groups: tuple[tuple[tuple[tuple[str, Scalar], ...], ...], ...]
    keys: tuple[str, ...]

    @classmethod
    def read(cls, loaded: LoadedExperiment, index: int, block: Mapping[str, Any], policy: Scalar) -> _Axes:
        groups, keys = [], dict[str, None]()
        for key, value in block.items():
            if key == "zip" and (not isinstance(value, Mapping) or not value):
                raise SpecError("zip is a mapping of axes", location=loaded.origins.locate("grid", index, "zip"))
            for members in [dict(dotted(value))] if key == "zip" else [{k: v} for k, v in dotted({key: value})]:
                if "policy" in members:
                    members["policy"] = _policies(loaded, index, members["policy"], policy, zipped=key == "zip")
                group = _zipped(loaded, index, members)
                written = dict.fromkeys(name for settings in group for name, _ in settings)
                twice = next((name for name in written if name in keys), None)
                if twice is not None:
                    raise SpecError(f"axis {twice!r} is written twice", location=place_of(loaded, index, twice))
                keys.update(written)
                groups.append(group)
        return cls(tuple(groups), tuple(keys))

    @property
    def has_chains(self) -> bool:
        """Whether a policy is made here: it may start from that of the file."""
        return any(isinstance(value, Chain) for group in self.groups for row in group for _, value in row)

    def assignments(self) -> Iterator[dict[str, Scalar]]:
        for combination in itertools.product(*self.groups):
            yield {key: value for settings in combination for key, value in settings}


def _policies(loaded: LoadedExperiment, index: int, written: Any, default: Scalar, *, zipped: bool) -> Sequence[Any]:
    origins = loaded.origins.inside("grid", index, *(["zip"] if zipped else []), "policy")
    if not isinstance(written, list):
        return [read_policy(written, origins, default, loaded.flatten)]
    return [read_policy(item, origins.inside(place), default, loaded.flatten) for place, item in enumerate(written)]


def _zipped(
    loaded: LoadedExperiment, index: int, members: Mapping[str, Any]
) -> tuple[tuple[tuple[str, Scalar], ...], ...]:
    columns = {key: as_list(value) for key, value in members.items()}
    lengths = {len(column) for column in columns.values()}
    place = place_of(loaded, index, next(iter(members)))
    if len(lengths) > 1:
        raise SpecError(f"axes of a zip differ in length: {sorted(lengths)}", location=place)
    if lengths == {0}:
        raise SpecError("an axis needs at least one value", location=place)
    rows = []
    for row in zip(*columns.values(), strict=True):
        settings: dict[str, Scalar] = {}
        for key, value in zip(columns, row, strict=True):
            settings.update(loaded.flatten(key, value, place_of(loaded, index, key)))
        rows.append(tuple(settings.items()))
    if len(set(rows)) < len(rows):
        raise SpecError("an axis repeats a value", location=place)
    return tuple(rows)


def _fixed_values(loaded: LoadedExperiment) -> dict[str, Scalar]:
    experiment = loaded.experiment
    fixed: dict[str, Scalar] = {"seed": 0}
    for key in SCALARS:
        value = getattr(experiment, key)
        if value is not None:
            is_policy = key == "policy"
            origins = loaded.origins.inside(key)
            if key in JUDGES:
                value = read_judge(key, value, origins.locate)
            fixed[key] = read_policy(value, origins, None, loaded.flatten) if is_policy else value
    fixed.update({f"data.{name}": getattr(experiment.data, name) for name in DataSection.model_fields})
    for section in SECTIONS:
        value = getattr(experiment, section)
        if section != "data" and value is not None:
            for name, item in value.items() if isinstance(value, Mapping) else [("init", value)]:
                place = loaded.origins.locate(section, name)
                if isinstance(value, Mapping) and name not in SECTIONS[section].model_fields:
                    hint = parameter_hint(section, str(name))
                    raise SpecError(f"unknown key {name!r} in {section}", location=place, hint=hint)
                if isinstance(item, Mapping):
                    raise SpecError(f"{section}.{name} needs a single value (found {item!r})", location=place)
                fixed.update(loaded.flatten(f"{section}.{name}", item, place))
    return fixed


def conditions(loaded: LoadedExperiment) -> Iterator[tuple[str, Any, Location]]:
    """Yield every key of ``when`` and ``exclude`` with each value that matches it and where it is written."""
    experiment = loaded.experiment
    written: dict[tuple[str | int, ...], Mapping[str, Any]] = {
        **{("when", number, "if"): rule.condition for number, rule in enumerate(experiment.when)},
        **{("exclude", number): condition for number, condition in enumerate(experiment.exclude)},
    }
    for path, condition in written.items():
        for key, wanted in dotted(condition):
            place = _written_at(loaded, condition, key, *path)
            for value in as_list(wanted):
                if isinstance(value, Mapping):  # a policy that is made here
                    continue
                yield SHORTHANDS.get(key, key), value, place


Condition = tuple[tuple[str, tuple[Any, ...]], ...]
"""Keys with the values that match, all of which must."""


def _read_condition(loaded: LoadedExperiment, written: Mapping[str, Any], *path: str | int) -> Condition:
    found = []
    for key, wanted in dotted(written):
        place = _written_at(loaded, written, key, *path)
        # A name says nothing of the policy that a chain starts from unless that is written in it.
        origins = loaded.origins.inside(*path, key)
        values = (
            read_policy(value, origins, "", loaded.flatten) if key == "policy" else value for value in as_list(wanted)
        )
        found.append((loaded.known_key(key, "key", place), tuple(values)))
    return tuple(found)


def _written_at(loaded: LoadedExperiment, written: Mapping[str, Any], key: str, *path: str | int) -> Location:
    return loaded.origins.locate(*path, key if key in written else key.partition(".")[0])


def _matches(values: Values, condition: Condition) -> bool:
    found = ((values.get(key), allowed) for key, allowed in condition)
    return all((value.written if isinstance(value, OwnSet) else value) in allowed for value, allowed in found)


@dataclass(frozen=True)
class _Rule:
    """A conditional, its keys checked and dotted."""

    condition: Condition
    set: Values
    place: Location

    @classmethod
    def read_all(cls, loaded: LoadedExperiment, policy: Scalar) -> list[_Rule]:
        rules = []
        for number, rule in enumerate(loaded.experiment.when):
            place = loaded.origins.locate("when", number)
            condition = _read_condition(loaded, rule.condition, "when", number, "if")
            values: dict[str, Scalar] = {}
            for key, value in rule.set.items():
                origins = loaded.origins.inside("when", number, "set", key)
                read = read_policy(value, origins, policy, loaded.flatten) if key == "policy" else value
                values.update(loaded.flatten(key, read, origins.locate()))
            rules.append(cls(condition, values, place))
        return rules

    def apply(self, values: dict[str, Scalar], assignment: Mapping[str, Scalar], block: int) -> None:
        for name in self.set:
            if name in assignment:
                message = f"when sets {name!r}, which varies in block {block + 1} of the grid"
                raise SpecError(message, location=self.place)
        values.update(self.set)


def _read_excludes(loaded: LoadedExperiment) -> list[Condition]:
    for number, condition in enumerate(loaded.experiment.exclude):
        if not condition:
            place = loaded.origins.locate("exclude", number)
            raise SpecError("an empty exclude would leave out every cell", location=place)
    return [
        _read_condition(loaded, condition, "exclude", number)
        for number, condition in enumerate(loaded.experiment.exclude)
    ]


def _defaults(varied: Iterable[str]) -> dict[str, Scalar]:
    """Return the defaults of the axes that have one: cells of blocks that don't write an axis are at its default."""
    defaults: dict[str, Scalar] = {}
    for key in varied:
        section, _, name = key.partition(".")
        # A scratch model's own recipe, not the section, holds the defaults of pretrain.
        if name and section != "pretrain" and not SECTIONS[section].model_fields[name].is_required():
            defaults[key] = SECTIONS[section].model_fields[name].default
    return defaults


@dataclass(frozen=True)
class _Projection:
    """Fills derived keys in, then keeps only what a cell's method reads, or those of the chain that it starts from."""

    loaded: LoadedExperiment
    defaults: Values
    rounds_vary: bool

    @functools.cached_property
    def without_sft(self) -> Values:
        return {key: value for key, value in self.defaults.items() if not key.startswith("sft.")}

    def keep_read(self, block: int, written: Values) -> Values:
        values = {**(self.defaults if "sft.dataset" in written else self.without_sft), **written}
        method = self._method(block, values)
        if values.get("rounds") is None:
            values.pop("rounds", None)
            if self.rounds_vary:
                values["rounds"] = own_rounds(method, values)
        derived = {key: source for key, source in DERIVED.items() if values.get(key) is None}
        for key, source in derived.items():
            found = values.get(source)
            values[key] = root_of(found) if isinstance(found, Chain) else found
        for key, default in DEFAULTS.items():
            if values.get(key) is None:
                values[key] = derived[key] = default
        if "prompts" in method.axes:
            self._require(block, values, "prompts")
        self._check_judge(block, method, values)
        scalars, sections = _read_keys(method, _has_reward_model(method, values))
        kept = {
            key: value
            for key, value in values.items()
            if (key.partition(".")[0] in sections if "." in key else key in scalars)
        }
        policy = values["policy"]
        if isinstance(policy, Chain):
            others = (key for key in values if key not in kept and key not in derived)
            kept |= {key: values[key] for key in others if is_read_by_chain(policy, key, method.name, method_reads)}
        for key in SET_KEYS & kept.keys():
            kept |= self._own_set(block, key, kept[key], values)
        return kept

    def _own_set(self, block: int, key: str, name: Scalar, values: Values) -> Values:
        """Return a set that takes values of axes as the cell has it, with these axes; nothing for any other set."""
        varied = self.loaded.varied.by_name.get(str(name))
        if varied is None or isinstance(name, OwnSet):
            return {}
        own = {axis: values.get(axis) for axis in varied.axes}
        for axis, value in own.items():
            if value is None:
                raise SpecError(
                    f"the set {varied.name!r} takes the value of {axis!r}, and cells of block {block + 1} have none",
                    location=place_of(self.loaded, block, key),
                    hint=f"add {axis}: to this block of the grid",
                )
        return {**own, key: self.loaded.varied.at(varied.name, own)}

    def _method(self, block: int, values: Values) -> Method:
        self._require(block, values, "policy", "algorithm")
        name = str(values["algorithm"])
        if name not in METHODS:
            find_method(name, location=place_of(self.loaded, block, "algorithm"))
        if "dataset" in METHODS[name].reads:
            self._require(block, values, "dataset")
        return METHODS[name]

    def _check_judge(self, block: int, method: Method, values: Values) -> None:
        """Raise UnknownNameError for a name of what scores responses that there is not."""
        judge = None if method.judge is None else values[method.judge]
        if method.judge is not None:
            assert isinstance(judge, str)
            if judge not in REWARDS:
                find_reward(judge, axis=method.judge, location=place_of(self.loaded, block, method.judge))

    def _require(self, block: int, values: Values, *keys: str) -> None:
        for key in keys:
            if values.get(key) is None:
                raise SpecError(
                    f"{key!r} is set nowhere",
                    location=self.loaded.origins.locate("grid", block),
                    hint=f"add {key}: to the file or to this block",
                )


def own_rounds(method: Method, values: Values) -> int:
    """Return how often a method is run in a cell that does not say."""
    if method.rounds is None:
        return 1
    default = method.parameters.model_fields[method.rounds].default
    return int(values.get(f"{method.name}.{method.rounds}") or default)


def method_reads(method: str, key: str) -> bool:
    """Whether cells of a method may read a key."""
    scalars, sections = _read_keys(METHODS[method])
    return key.partition(".")[0] in sections if "." in key else key in scalars


def _has_reward_model(method: Method, values: Values) -> bool:
    """Whether a cell's method takes a reward model in: always, as its judge, or by one of its parameters."""
    if "reward_model" not in method.axes:
        return False
    if method.judge is None or values[method.judge] == REWARD_MODEL:
        return True
    if method.reward_model_if is None:
        return False
    name, wanted = method.reward_model_if
    return bool(values.get(f"{method.name}.{name}", method.parameters.model_fields[name].default) == wanted)


def _read_keys(method: Method, reward_model: bool = True) -> tuple[frozenset[str], frozenset[str]]:
    """Return the scalars and the sections that a method reads, with or without those of a reward model."""
    return _keys_of(method.name, method.axes, reward_model)


@functools.cache
def _keys_of(name: str, axes: frozenset[str], reward_model: bool) -> tuple[frozenset[str], frozenset[str]]:
    reads = axes - (frozenset() if reward_model else {"reward_model"})
    return ALWAYS_READ | reads, SHARED_SECTIONS | {name} | (reads & {"reward_model"})


def _refuse_unread(loaded: LoadedExperiment, index: int, keys: Sequence[str], used: set[str]) -> None:
    for key in keys:
        if key not in used:
            is_own = key in loaded.varied.axes
            raise SpecError(
                f"no {'set' if is_own else 'method'} of this block reads {key!r}, so the axis would vary nothing",
                location=place_of(loaded, index, key),
                hint=f"move it to a block whose {'dataset' if is_own else 'algorithm'} reads it",
            )
