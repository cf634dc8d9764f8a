"""From stages to job arrays: which are one array, at which index, and how SLURM is told of their order.

A strong dependency (``afterok``, ``aftercorr``) is used only where every element it holds back needs what it waits for,
so that a failure stops what needs it and nothing else. Where that can't be said, ``afterany`` waits for the whole array
to end, and the element looks at its inputs itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ablate.execution.slurm.shapes import Shape

How = Literal["afterok", "aftercorr", "afterany"]
Place = tuple[str, int]
"""Key of an array and index in it."""

MOST_NAMED = 20
"""Elements of an array named one by one in a dependency; more of them are waited for as a whole."""
ONE, BY_ARRAYS, EXACT = 0, 1, 2
"""How finely a group of stages is divided: not at all, by the arrays of its parents, so that every need is exact."""


@dataclass(frozen=True)
class Item:
    """A stage to submit: what it asks for, and the stages it needs that are not done."""

    id: str
    shape: Shape
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """What an array waits for: elements of another (none named: all of it)."""

    array: str
    how: How
    indices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Work:
    """What a worker calls, as ``module:function``, with its array's folder, JSON of its own and its resources.

    ``needs`` is the kind of stage that the profile's lines about its resources are of.
    """

    entry: str
    arguments: Mapping[str, Any]
    needs: str


@dataclass(frozen=True)
class Array:
    """A job array: stages by index, several of them where they are packed; and what it waits for.

    Elements without stages are workers, which find out themselves what there is to do: ``work`` says with what.
    """

    key: str
    shape: Shape
    elements: Mapping[int, tuple[str, ...]]
    needs: tuple[Need, ...] = ()
    work: Work | None = None

    @property
    def asked_for(self) -> str:
        """Return the kind of stage that the profile's lines about its resources are of."""
        return self.work.needs if self.work else self.shape.kind

    @property
    def stages(self) -> list[str]:
        """Return the ids of its stages."""
        return [stage for element in self.elements.values() for stage in element]


@dataclass(frozen=True)
class Queued:
    """Stages that are in the queue already, and how many share an element of each array there."""

    places: Mapping[str, Place] = field(default_factory=dict)
    packs: Mapping[str, int] = field(default_factory=dict)


def arrange(items: Sequence[Item], queued: Queued, *, largest: int, calls: int, first: int = 0) -> list[Array]:
    """Return the arrays of ``items`` (parents before children), each after those it waits for.

    No array has more than ``largest`` elements, at indices below that. Groups of stages are divided, the largest first,
    as long as there are no more than ``calls`` arrays, or twice as many as without division. Keys count from ``first``.
    """
    groups = _groups(items)
    modes = [ONE] * len(groups)
    arrays = _lay_out(groups, modes, queued, largest, first)
    most = max(calls, 2 * len(arrays) if len(arrays) > calls else 0)
    order = sorted(range(len(groups)), key=lambda number: -len(groups[number]))
    for mode in (EXACT, BY_ARRAYS):
        for number in order:
            if modes[number] >= mode:
                continue
            tried = [*modes[:number], mode, *modes[number + 1 :]]
            finer = _lay_out(groups, tried, queued, largest, first)
            if len(finer) <= most:
                modes, arrays = tried, finer
    return arrays


def arrange_behind(
    canary: Container[str], items: Sequence[Item], queued: Queued, *, largest: int, calls: int
) -> list[Array]:
    """Return the arrays of ``items``, those of ``canary`` first: nothing else starts until these end well.

    Nor until those of ``canary`` do that are in the queue already.
    """
    ahead = [item for item in items if item.id in canary]
    rest = [item for item in items if item.id not in canary]
    front = arrange(ahead, queued, largest=largest, calls=calls)
    places = {stage: (array.key, index) for array in front for index, ids in array.elements.items() for stage in ids}
    packs = {array.key: array.shape.pack for array in front}
    known = Queued({**queued.places, **places}, {**queued.packs, **packs})
    needed = {need.array for array in front for need in array.needs}
    earlier: dict[str, set[int]] = defaultdict(set)
    for stage, (job, index) in queued.places.items():
        if stage in canary:
            earlier[job].add(index)
    gate = [Need(array.key, "afterok") for array in front if array.key not in needed]
    gate += [Need(job, "afterok", tuple(sorted(indices))) for job, indices in earlier.items()]
    behind = arrange(rest, known, largest=largest, calls=calls, first=len(front))
    return [*front, *(replace(array, needs=(*array.needs, *gate)) for array in behind)]


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """Return stages of one shape that none of them needs, groups in an order in which each needs earlier ones only."""
    ranks, depths = _ranks(items), _depths(items)
    keys: dict[str, tuple[Shape, int, int]] = {item.id: (item.shape, ranks[item.id], 0) for item in items}
    circular = _circular(items, keys)
    for item in items:
        if keys[item.id] in circular:
            keys[item.id] = (item.shape, ranks[item.id], 1 + depths[item.id])
    groups: dict[tuple[Shape, int, int], list[Item]] = defaultdict(list)
    for item in items:
        groups[keys[item.id]].append(item)
    above = _edges(items, keys)
    ordered: list[list[Item]] = []
    placed: set[tuple[Shape, int, int]] = set()
    while len(placed) < len(groups):
        free = [key for key in groups if key not in placed and above[key] <= placed]
        placed.update(free)
        ordered.extend(groups[key] for key in free)
    return ordered


def _ranks(items: Sequence[Item]) -> dict[str, int]:
    """Return how many stages of its own shape come before each on the longest way."""
    before: dict[str, dict[Shape, int]] = {}
    ranks = {}
    for item in items:
        merged: dict[Shape, int] = {}
        for parent in item.parents:
            for shape, count in before.get(parent, {}).items():
                merged[shape] = max(count, merged.get(shape, 0))
        ranks[item.id] = merged.get(item.shape, 0)
        before[item.id] = merged | {item.shape: ranks[item.id] + 1}
    return ranks


def _depths(items: Sequence[Item]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for item in items:
        depths[item.id] = 1 + max((depths.get(parent, -1) for parent in item.parents), default=-1)
    return depths


Key = tuple[Shape, int, int]


def _edges(items: Iterable[Item], keys: Mapping[str, Key]) -> dict[Key, set[Key]]:
    """Return the groups that each group needs."""
    above: dict[Key, set[Key]] = {key: set() for key in keys.values()}
    for item in items:
        above[keys[item.id]] |= {keys[parent] for parent in item.parents if parent in keys}
    return above


def _circular(items: Sequence[Item], keys: Mapping[str, Key]) -> set[Key]:
    """Return the groups on circles of needs, and between two circles; by depth they come apart."""
    above = _edges(items, keys)
    below: dict[Key, set[Key]] = {key: set() for key in above}
    for key, needed in above.items():
        for other in needed:
            below[other].add(key)
    left = set(above)
    for edges in (above, below):
        while free := {key for key in left if not edges[key] & left}:
            left -= free
    return left


class _Layout:
    """Arrays as they are made: where each stage is, and what arrays there are."""

    def __init__(self, queued: Queued, largest: int, first: int) -> None:
        self.largest, self.first = largest, first
        self.places: dict[str, Place] = dict(queued.places)
        self.packs: dict[str, int] = dict(queued.packs)
        self.indices: dict[str, frozenset[int]] = {}
        self.arrays: list[Array] = []

    def needed(self, item: Item) -> dict[str, frozenset[int]]:
        """Return the elements an item needs, by array."""
        found: dict[str, set[int]] = defaultdict(set)
        for parent in item.parents:
            array, index = self.places[parent]
            found[array].add(index)
        return {array: frozenset(indices) for array, indices in found.items()}

    def add(self, items: Sequence[Item], indices: Sequence[int] | None = None) -> None:
        """Make one array of items at given indices, or as many as it takes of items in a row."""
        pack = items[0].shape.pack
        if indices is not None:
            self._make(items, indices)
            return
        whole = self.largest * pack
        for start in range(0, len(items), whole):
            part = items[start : start + whole]
            self._make(part, [position // pack for position in range(len(part))])

    def _make(self, items: Sequence[Item], indices: Sequence[int]) -> None:
        shape = items[0].shape
        key = f"{self.first + len(self.arrays):02d}-{shape.kind}"
        needs = self._needs(items, indices)
        elements: dict[int, tuple[str, ...]] = {}
        for item, index in zip(items, indices, strict=True):
            elements[index] = (*elements.get(index, ()), item.id)
            self.places[item.id] = key, index
        self.packs[key], self.indices[key] = shape.pack, frozenset(elements)
        self.arrays.append(Array(key, shape, dict(sorted(elements.items())), needs))

    def _needs(self, items: Sequence[Item], indices: Sequence[int]) -> tuple[Need, ...]:
        needed = [self.needed(item) for item in items]
        arrays = dict.fromkeys(array for found in needed for array in found)
        return tuple(
            self._need(array, [found.get(array, frozenset()) for found in needed], indices) for array in arrays
        )

    def _need(self, array: str, needed: Sequence[frozenset[int]], indices: Sequence[int]) -> Need:
        first = needed[0]
        if all(found == first for found in needed):
            if len(first) > 1 and first == self.indices.get(array):
                return Need(array, "afterok")
            if len(first) <= MOST_NAMED:
                return Need(array, "afterok", tuple(sorted(first)))
        elif all(found == {index} for found, index in zip(needed, indices, strict=True)):
            return Need(array, "aftercorr")
        return Need(array, "afterany")


def _lay_out(
    groups: Sequence[Sequence[Item]], modes: Sequence[int], queued: Queued, largest: int, first: int
) -> list[Array]:
    layout = _Layout(queued, largest, first)
    for group, mode in zip(groups, modes, strict=True):
        for part in _parts(layout, group, by_arrays=mode > ONE):
            if mode == EXACT:
                _add_exactly(layout, part)
            else:
                layout.add(part)
    return layout.arrays


def _parts(layout: _Layout, group: Sequence[Item], *, by_arrays: bool) -> list[list[Item]]:
    if not by_arrays:
        return [list(group)]
    parts: dict[frozenset[str], list[Item]] = defaultdict(list)
    for item in group:
        parts[frozenset(layout.places[parent][0] for parent in item.parents)].append(item)
    return list(parts.values())


def _add_exactly(layout: _Layout, items: list[Item]) -> None:
    """Make arrays of items with parents in the same arrays: one for each choice of parents, or in step with one."""
    needed = [layout.needed(item) for item in items]
    choices: dict[frozenset[tuple[str, frozenset[int]]], list[Item]] = defaultdict(list)
    for item, found in zip(items, needed, strict=True):
        choices[frozenset(found.items())].append(item)
    leader, turns = _leader(layout, items, needed)
    if leader is None or len(choices) <= turns:
        for chosen in choices.values():
            layout.add(chosen)
        return
    taken: Counter[str] = Counter()
    rows: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        parent = next(parent for parent in item.parents if layout.places[parent][0] == leader)
        rows[taken[parent]].append(item)
        taken[parent] += 1
    for row in rows.values():
        layout.add(row, [min(layout.needed(item)[leader]) for item in row])


def _leader(
    layout: _Layout, items: Sequence[Item], needed: Sequence[Mapping[str, frozenset[int]]]
) -> tuple[str | None, int]:
    """Return the array that these items can be in step with, in the fewest arrays, and how many those are."""
    best: tuple[str | None, int] = (None, 0)
    for array in dict.fromkeys(array for found in needed for array in found):
        if any(len(found[array]) != 1 for found in needed) or layout.packs.get(array, 1) != items[0].shape.pack:
            continue
        counts = Counter(next(parent for parent in item.parents if layout.places[parent][0] == array) for item in items)
        turns = max(counts.values())
        if best[0] is None or turns <= best[1]:  # of equals the later array: what it needs has ended, too
            best = array, turns
    return best


def spelled_indices(indices: Iterable[int]) -> str:
    """Return indices as --array takes them: ``0-3,7``."""
    ordered = sorted(indices)
    ranges: list[list[int]] = []
    for index in ordered:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def spelled_needs(needs: Iterable[Need], jobs: Mapping[str, str]) -> str:
    """Return needs as --dependency takes them; ``jobs`` maps an array's key to its job id."""
    spelled = []
    for need in needs:
        job = jobs[need.array]
        named = [f"{job}_{index}" for index in need.indices] or [job]
        spelled.append(":".join([need.how, *named]))
    return ",".join(spelled)
