"""The stages of a plan, each once, parents before children."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.plan.fingerprint import Config
from ablate.plan.kinds import KINDS
from ablate.plan.stage import Execution, Identity, Ref, Stage


class Graph:
    """A growing directed acyclic graph of stages; adding an equal stage again returns the first one."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def add(
        self,
        kind: str,
        config: Config | Mapping[str, Any],
        inputs: Mapping[str, Ref] | None = None,
        *,
        label: str,
        locations: Mapping[str, str] | None = None,
        entry: str | None = None,
        parts: Mapping[str, int] | None = None,
        heavy: bool = False,
        divisible: bool = True,
        network: bool = False,
        gpu: bool = True,
    ) -> Stage:
        """Return the stage with this identity, adding it when it is new.

        ``parts`` are the revisions of the named code that the work uses, beside the kind's own. ``divisible``: several
        processes can do the work of a kind that trains. ``gpu``: the work of a kind that computes on one does.
        """
        facts = KINDS[kind]
        frozen = config if isinstance(config, Config) else Config.of(config)
        identity = Identity(kind, facts.revision, frozen, tuple((inputs or {}).items()), tuple((parts or {}).items()))
        stage_id = identity.id()
        found = self.stages.get(stage_id)
        if found is None:
            needs = (
                facts.heavy or heavy,
                facts.gpu and gpu,
                facts.trains,
                facts.trains and divisible,
                facts.network or network,
            )
            how = entry or facts.entry, label
            execution = Execution(*how, locations, *needs) if locations else _without_locations(*how, needs)
            found = self.stages[stage_id] = Stage(stage_id, identity, execution)
        return found

    def needed_by(self, wanted: Iterable[str]) -> dict[str, Stage]:
        """Return the stages among ``wanted``, and all that they are made from, parents before children."""
        found: set[str] = set()
        waiting = [stage_id for stage_id in wanted if stage_id in self.stages]
        while waiting:
            stage_id = waiting.pop()
            if stage_id not in found:
                found.add(stage_id)
                waiting.extend(self.stages[stage_id].parents)
        return {stage_id: stage for stage_id, stage in self.stages.items() if stage_id in found}


@functools.cache
def _without_locations(entry: str, label: str, needs: tuple[bool, ...]) -> Execution:
    """Return how stages are run that read nothing outside the store: evaluations on one suite are run alike."""
    return Execution(entry, label, {}, *needs)


def children_of(stages: Iterable[Stage]) -> dict[str, list[str]]:
    """Return parent id to the ids of the stages that take its artifacts in."""
    children: dict[str, list[str]] = {}
    for stage in stages:
        for parent in stage.parents:
            children.setdefault(parent, []).append(stage.id)
    return children
