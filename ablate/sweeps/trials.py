"""Trials as cells of the ordinary plan: the plan of one, and that of all of them together."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ablate.execution.study import plan_loaded
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.spec import Evaluations
from ablate.experiment.sweep import Sweep
from ablate.experiment.tuning import Group, Tuning
from ablate.plan.fingerprint import digest
from ablate.plan.plan import Plan
from ablate.plan.selection import Selection
from ablate.plan.stage import Stage
from ablate.store import Store
from ablate.sweeps.space import Space, Values


@dataclass(frozen=True)
class TrialPlan:
    """The cells of one trial and the stages that make and measure them."""

    values: Values
    plan: Plan

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Every stage of the trial, those it shares with others too."""
        return self.plan.stages

    @property
    def policies(self) -> list[str]:
        """The stages that make the policies of the trial's cells, in the order of the grid."""
        return [item.stage for item in self.plan.subjects if item.role == "cell" and item.subject == "policy"]

    def digest(self, suites: Collection[str] | None) -> str:
        """Return a digest of the trial's policies, and of how ``suites`` (None: all) measure them."""
        cells = [item for item in self.plan.subjects if item.role == "cell" and item.subject == "policy"]
        measured = [
            [stage for name, stage in sorted(cell.evaluations.items()) if suites is None or name in suites]
            for cell in cells
        ]
        return digest(json.dumps([self.policies, measured]))


class Planner(Protocol):
    """Plans the trials of one search; nothing is written. ``loaded`` is the experiment that trials are recorded as."""

    loaded: LoadedExperiment
    sweep: Sweep
    space: Space

    def one(self, values: Values) -> TrialPlan:
        """Return the plan of a trial; raises SpecError, at the searched key, for a value that its method refuses."""

    def all(self, trials: Iterable[Values]) -> Plan:
        """Return one plan of the cells of all trials."""


class SweepPlanner:
    """Plans trials of a sweep: the grid's blocks with the values of each."""

    def __init__(self, loaded: LoadedExperiment, store: Store) -> None:
        """Read the section ``sweep``; raises SpecError for a search that makes no sense."""
        assert loaded.experiment.sweep is not None
        self.loaded, self.sweep, self._store = loaded, loaded.experiment.sweep, store
        self.space = Space(loaded, self.sweep)

    def one(self, values: Values) -> TrialPlan:
        """Return the plan of a trial."""
        blocks = self.space.cells(values)
        written = [(index, key) for index, block in enumerate(blocks) for key in values.keys() & block.keys()]
        loaded = searched_at(self.loaded, self.sweep, written)
        return TrialPlan(values, plan_loaded(self._with(blocks, loaded), self._store))

    def all(self, trials: Iterable[Values]) -> Plan:
        """Return one plan of the cells of all trials."""
        blocks = [block for values in trials for block in self.space.cells(values)]
        return plan_loaded(self._with(blocks, self.loaded), self._store)

    @staticmethod
    def _with(blocks: Iterable[Mapping[str, Any]], loaded: LoadedExperiment) -> LoadedExperiment:
        return replace(loaded, experiment=loaded.experiment.model_copy(update={"grid": tuple(blocks)}))


class GroupPlanner:
    """Plans trials of a group of cells that are tuned together: these cells, at one seed, with the values of each."""

    def __init__(
        self, loaded: LoadedExperiment, tuning: Tuning, group: Group, suites: Sequence[str], store: Store
    ) -> None:
        """Read what the group searches; ``suites`` judge its trials. Raises SpecError for what makes no sense."""
        tune, experiment = tuning.tune, loaded.experiment
        self.sweep: Sweep = group.search_of(tune)
        name = store.experiment(experiment.name).group(group.name).experiment
        about = {"name": name, "evaluate": Evaluations(policy=tuple(suites))}
        nothing = {"baselines": (), "reward_models": (), "report": None, "claims": ()}
        self.loaded = replace(loaded, experiment=experiment.model_copy(update={**about, **nothing}))
        self._group, self._cells, self._store = group, group.at_seed(tune.seed), store
        self._whole = replace(tuning.whole, axes=(*tuning.whole.axes, *group.search))
        fixed = ({key: value for key, value in cell.values.items() if key not in group.search} for cell in self._cells)
        self.space = Space(self.loaded, self.sweep, list(fixed))

    def one(self, values: Values) -> TrialPlan:
        """Return the plan of a trial."""
        written = [(cell.block, key) for cell in self._cells for key in values]
        return TrialPlan(values, self._plan(searched_at(self.loaded, self.sweep, written), [values]))

    def all(self, trials: Iterable[Values]) -> Plan:
        """Return one plan of the cells of all trials."""
        return self._plan(self.loaded, trials)

    def _plan(self, loaded: LoadedExperiment, trials: Iterable[Values]) -> Plan:
        cells = dict.fromkeys(self._group.with_values(cell, values) for values in trials for cell in self._cells)
        selection = Selection(self._whole, replace(self._whole, cells=tuple(cells)))
        return plan_loaded(loaded, self._store, selection=selection)


def searched_at(loaded: LoadedExperiment, sweep: Sweep, written: Iterable[tuple[int, str]]) -> LoadedExperiment:
    """Return an experiment whose keys of blocks, ``written`` by a trial, stand where they are searched."""
    origins = loaded.origins
    for block, key in written:
        origins = origins.rewritten(("grid", block, key), origins.locate(sweep.section, "search", key))
    return replace(loaded, origins=origins)
