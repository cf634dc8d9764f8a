"""Trials as cells of the ordinary plan: the plan of one, and that of all of them together."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablate.execution.study import plan_loaded
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import Scalar
from ablate.plan.fingerprint import digest
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.store import Store
from ablate.sweeps.space import Space


@dataclass(frozen=True)
class TrialPlan:
    """The cells of one trial and the stages that make and measure them."""

    values: Mapping[str, Scalar]
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


class Planner:
    """Plans trials of one sweep; nothing is written."""

    def __init__(self, loaded: LoadedExperiment, space: Space, store: Store) -> None:
        self._loaded, self._space, self._store = loaded, space, store

    def one(self, values: Mapping[str, Scalar]) -> TrialPlan:
        """Return the plan of a trial; raises SpecError, at the searched key, for a value that its method refuses."""
        origins = self._loaded.origins
        blocks = self._space.cells(values)
        for index, block in enumerate(blocks):
            for key in values.keys() & block.keys():
                origins = origins.rewritten(("grid", index, key), origins.locate("sweep", "search", key))
        return TrialPlan(values, plan_loaded(self._with(blocks, replace(self._loaded, origins=origins)), self._store))

    def all(self, trials: Iterable[Mapping[str, Scalar]]) -> Plan:
        """Return one plan of the cells of all trials."""
        blocks = [block for values in trials for block in self._space.cells(values)]
        return plan_loaded(self._with(blocks, self._loaded), self._store)

    @staticmethod
    def _with(blocks: Iterable[Mapping[str, Any]], loaded: LoadedExperiment) -> LoadedExperiment:
        return replace(loaded, experiment=loaded.experiment.model_copy(update={"grid": tuple(blocks)}))
