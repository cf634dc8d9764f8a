"""From stages to arrays: the order SLURM is told implies the graph's, and a failure stops what needs it alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.execution.slurm.arrays import (
    Array,
    Item,
    Need,
    Queued,
    arrange,
    arrange_behind,
    spelled_indices,
    spelled_needs,
)
from ablate.execution.slurm.shapes import Shape

SHAPE = Shape("train", 60, 1, 1000)


def shape(kind: str, pack: int = 1) -> Shape:
    return replace(SHAPE, kind=kind, pack=pack)


def items(written: Mapping[str, Sequence[str]], packs: Mapping[str, int] | None = None) -> list[Item]:
    """Items named ``kind:number``, with their parents."""
    kinds = {name: shape(name.partition(":")[0], (packs or {}).get(name.partition(":")[0], 1)) for name in written}
    return [Item(name, kinds[name], tuple(parents)) for name, parents in written.items()]


@st.composite
def graphs(draw: st.DrawFn) -> list[Item]:
    """Layers of stages of some kinds, in which a kind may come again."""
    count = draw(st.integers(1, 40))
    kinds = draw(st.lists(st.sampled_from("abcde"), min_size=count, max_size=count))
    packs = {kind: draw(st.sampled_from([1, 1, 1, 2, 3])) for kind in "abcde"}
    written: dict[str, list[str]] = {}
    for number, kind in enumerate(kinds):
        before = list(written)
        written[f"{kind}:{number}"] = draw(st.lists(st.sampled_from(before), max_size=4, unique=True)) if before else []
    return items(written, packs)


@st.composite
def studies(draw: st.DrawFn) -> list[Item]:
    """Data sets, reward models, trainings that take one of each, suites of every training."""
    sets, seeds, suites = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    written: dict[str, list[str]] = {"sft:0": []}
    for d in range(sets):
        written[f"data:{d}"] = []
        written |= {f"reward:{d}{s}": ["sft:0", f"data:{d}"] for s in range(seeds)}
        for s in range(seeds):
            written[f"train:{d}{s}"] = ["sft:0", f"data:{d}", f"reward:{d}{s}"]
            for suite in range(suites):
                written[f"generate:{d}{s}{suite}"] = [f"train:{d}{s}"]
                written[f"evaluate:{d}{s}{suite}"] = [f"generate:{d}{s}{suite}", f"train:{d}{s}"]
    return items(written, {"evaluate": draw(st.sampled_from([1, 3]))})


class Cluster:
    """What SLURM does with arrays: an element starts when what it waits for has ended so, in any order it likes."""

    def __init__(self, arrays: Sequence[Array], stages: Sequence[Item], failing: set[str], seed: int) -> None:
        self.arrays, self.stages = {array.key: array for array in arrays}, {item.id: item for item in stages}
        self.failing, self.random = failing, random.Random(seed)
        self.ended: dict[tuple[str, int], bool] = {}
        self.done: set[str] = set()
        self.begun: list[str] = []

    def run(self) -> None:
        waiting = {(key, index) for key, array in self.arrays.items() for index in array.elements}
        while waiting:
            ready = sorted(place for place in waiting if self._may_start(*place))
            hopeless = sorted(place for place in waiting if self._can_never_start(*place))
            assert ready or hopeless, f"{sorted(waiting)} wait for ever"
            place = self.random.choice(ready + hopeless)
            waiting.remove(place)
            self.ended[place] = place in ready and self._element(*place)

    def _element(self, key: str, index: int) -> bool:
        """The worker: each stage looks at its inputs; the element ends well where one stage of it does."""
        well = []
        for stage in self.arrays[key].elements[index]:
            if set(self.stages[stage].parents) <= self.done:
                self.begun.append(stage)
                well.append(stage not in self.failing)
                if well[-1]:
                    self.done.add(stage)
        return any(well)

    def _can_never_start(self, key: str, index: int) -> bool:
        """Whether SLURM cancels it (--kill-on-invalid-dep)."""
        return any(False in self._ends(need, index) for need in self.arrays[key].needs if need.how != "afterany")

    def _may_start(self, key: str, index: int) -> bool:
        return all(self._is_met(need, index) for need in self.arrays[key].needs)

    def _is_met(self, need: Need, index: int) -> bool:
        ends = self._ends(need, index)
        return None not in ends and (need.how == "afterany" or all(ends))

    def _ends(self, need: Need, index: int) -> list[bool | None]:
        """How what a need waits for has ended; None where it has not."""
        whole = need.indices or tuple(self.arrays[need.array].elements)
        return [self.ended.get((need.array, i)) for i in ((index,) if need.how == "aftercorr" else whole)]


def check(stages: list[Item], arrays: list[Array], largest: int) -> None:
    """What must hold of any arrangement, whatever fails."""
    placed = [stage for array in arrays for stage in array.stages]
    assert sorted(placed) == sorted(item.id for item in stages)
    seen: set[str] = set()
    for array in arrays:
        assert {need.array for need in array.needs} <= seen, "an array waits for earlier ones alone"
        seen.add(array.key)
        assert max(array.elements) < largest
        assert all(len(element) <= array.shape.pack for element in array.elements.values())


def needed_by(stages: Sequence[Item], failing: set[str]) -> set[str]:
    """Stages that can't be made where some fail: these, and what hangs on them."""
    lost = set(failing)
    for item in stages:
        if set(item.parents) & lost:
            lost.add(item.id)
    return lost


@settings(max_examples=120, deadline=None)
@given(graphs() | studies(), st.integers(1, 60), st.sampled_from([1, 3, 1000]), st.data())
def test_what_slurm_is_told_implies_the_graph(
    stages: list[Item], calls: int, largest: int, data: st.DataObject
) -> None:
    arrays = arrange(stages, Queued(), largest=largest, calls=calls)
    check(stages, arrays, largest)
    failing = set(data.draw(st.lists(st.sampled_from([item.id for item in stages]), max_size=3)))
    cluster = Cluster(arrays, stages, failing, seed=data.draw(st.integers(0, 99)))
    cluster.run()
    lost = needed_by(stages, failing)
    assert cluster.done == {item.id for item in stages} - lost, "a failure stops what needs it and nothing else"
    assert len(cluster.begun) == len(set(cluster.begun))


@settings(max_examples=60, deadline=None)
@given(graphs() | studies(), st.integers(1, 60), st.data())
def test_a_second_call_hangs_on_what_is_queued(stages: list[Item], calls: int, data: st.DataObject) -> None:
    """Some stages are queued by a first call, some of those have ended: the rest goes on from there."""
    count = data.draw(st.integers(0, len(stages)))
    first = [
        replace(array, key=f"job {array.key}", needs=tuple(replace(n, array=f"job {n.array}") for n in array.needs))
        for array in arrange(stages[:count], Queued(), largest=50, calls=calls)
    ]
    places = {stage: (array.key, index) for array in first for index, ids in array.elements.items() for stage in ids}
    queued = Queued(places, {array.key: array.shape.pack for array in first})
    later = arrange(stages[count:], queued, largest=50, calls=calls)
    cluster = Cluster([*first, *later], stages, set(), seed=1)
    cluster.run()
    assert cluster.done == {item.id for item in stages}


def thousand() -> list[Item]:
    """SFT, 10 sets, 30 reward models, 150 trainings, 6 suites each: 1,000 stages and some."""
    written: dict[str, list[str]] = {"sft:0": []}
    for d in range(10):
        written[f"data:{d}"] = []
        written |= {f"reward:{d}-{s}": ["sft:0", f"data:{d}"] for s in range(3)}
    for t in range(150):
        d, s = t % 10, t % 3
        written[f"train:{t}"] = ["sft:0", f"data:{d}", f"reward:{d}-{s}"]
        written |= {f"evaluate:{t}-{suite}": [f"train:{t}"] for suite in range(6)}
    return items(written)


def test_a_thousand_stages_are_few_calls_and_evaluations_keep_step_with_their_training() -> None:
    stages = thousand()
    arrays = arrange(stages, Queued(), largest=1000, calls=40)
    assert len(stages) == 1091 and len(arrays) <= 40
    evaluations = [array for array in arrays if array.shape.kind == "evaluate"]
    assert {need.how for array in evaluations for need in array.needs} == {"aftercorr"}
    assert sum(len(array.elements) for array in evaluations) == 900
    rewards = [array for array in arrays if array.shape.kind == "reward"]
    assert len(rewards) < 5, "not one for each set: every array of trainings would come as often, and its evaluations"


def test_dependencies_and_indices_as_slurm_reads_them() -> None:
    stages = items({"a:0": [], "a:1": [], "b:0": ["a:0"], "b:1": ["a:1"], "c:0": ["a:0", "b:1"], "c:1": ["a:0", "b:1"]})
    arrays = arrange(stages, Queued(), largest=10, calls=3)
    assert [array.key for array in arrays] == ["00-a", "01-b", "02-c"]
    jobs = {"00-a": "71", "01-b": "72", "02-c": "73"}
    spelled = [spelled_needs(array.needs, jobs) for array in arrays]
    assert spelled == ["", "aftercorr:71", "afterok:71_0,afterok:72_1"]
    assert spelled_needs([Need("00-a", "afterok"), Need("01-b", "afterany", (2, 5))], jobs) == (
        "afterok:71,afterany:72_2:72_5"
    )
    assert spelled_indices([4, 0, 1, 2, 9, 8]) == "0-2,4,8-9"


@pytest.mark.parametrize("largest", [1, 4, 500])
def test_a_cap_on_indices_makes_more_arrays_that_all_begin_at_zero(largest: int) -> None:
    stages = items({f"a:{number}": [] for number in range(10)} | {f"b:{n}": [f"a:{n}"] for n in range(10)})
    arrays = arrange(stages, Queued(), largest=largest, calls=100)
    assert all(min(array.elements) == 0 for array in arrays if array.shape.kind == "a")
    check(stages, arrays, largest)
    assert all(need.how != "afterany" for array in arrays for need in array.needs)


def test_nothing_starts_before_the_canary_has_ended_well() -> None:
    stages = thousand()
    canary = {"sft:0", "data:0", "reward:0-0", "train:0", *(f"evaluate:0-{suite}" for suite in range(6))}
    arrays = arrange_behind(canary, stages, Queued(), largest=1000, calls=40)
    check(stages, arrays, 1000)
    assert len({array.key for array in arrays}) == len(arrays)
    cluster = Cluster(arrays, stages, set(), seed=3)
    cluster.run()
    assert set(cluster.begun[: len(canary)]) == canary and len(cluster.done) == len(stages)
    broken = Cluster(arrays, stages, {"evaluate:0-3"}, seed=3)
    broken.run()
    assert set(broken.begun) == canary
