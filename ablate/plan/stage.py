"""A stage: a frozen value that says what to make. How it is run is a list of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ablate.plan.fingerprint import Config, digest


class Ref(NamedTuple):
    """An artifact of a stage: the stage's id and the artifact's name in its output (empty: all of it)."""

    stage: str
    artifact: str


@dataclass(frozen=True, slots=True)
class Identity:
    """All that changes what a stage makes. Nothing else can reach its id.

    ``revision`` is the kind's; ``parts`` are the named pieces of code that the work is put together from (a method, a
    converter, prompts, a grader), each with a revision of its own.
    """

    kind: str
    revision: int
    config: Config
    inputs: tuple[tuple[str, Ref], ...]
    parts: tuple[tuple[str, int], ...] = ()

    def id(self) -> str:
        """Return ``<kind>-<digest>``: equal exactly when kind, revisions, config and inputs are."""
        revisions = _spelled(self.revision, self.parts)
        inputs = ";".join(sorted([f"{role}={ref.stage}/{ref.artifact}" for role, ref in self.inputs]))
        return f"{self.kind}-{digest(f'{self.kind}|{revisions}|{self.config.digest}|{inputs}')}"


@functools.cache
def _spelled(revision: int, parts: tuple[tuple[str, int], ...]) -> str:
    """Return revisions as an id takes them: the same few for tens of thousands of stages."""
    return "+".join([str(revision), *sorted(f"{name}:{number}" for name, number in parts)])


@dataclass(frozen=True, slots=True)
class Execution:
    """How a stage is run: module and function of its work, paths outside the store, what it needs of a machine.

    ``heavy``: it computes with torch; ``gpu``: on a GPU; ``trains``: as training stages are asked to run; ``ranks``: in
    several processes, where they are asked for; ``network``: it asks servers outside the machine, so that on a cluster
    it belongs where there is a way out.
    """

    entry: str
    label: str
    locations: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = True
    gpu: bool = True
    trains: bool = False
    ranks: bool = False
    network: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One piece of work of a plan; a graph holds each once, so that two are equal when they are the same object."""

    id: str
    identity: Identity
    execution: Execution

    @property
    def kind(self) -> str:
        """What sort of work it is."""
        return self.identity.kind

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the stages whose artifacts it takes in."""
        return tuple(dict.fromkeys(ref.stage for _, ref in self.identity.inputs))

    def ref(self, artifact: str = "") -> Ref:
        """Return a reference to one of its artifacts."""
        return Ref(self.id, artifact)

    def as_json(self) -> dict[str, Any]:
        """Return stage.json: identity and execution, apart."""
        return {
            "id": self.id,
            "kind": self.identity.kind,
            "revision": self.identity.revision,
            "parts": dict(self.identity.parts),
            "config": self.identity.config.value,
            "inputs": {role: {"stage": ref.stage, "artifact": ref.artifact} for role, ref in self.identity.inputs},
            "entry": self.execution.entry,
            "label": self.execution.label,
            "locations": dict(self.execution.locations),
            "heavy": self.execution.heavy,
            "gpu": self.execution.gpu,
            "network": self.execution.network,
        }
