"""Policies of a plan that a server responds for: which stages they are, and what can't be asked of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ablate.catalogs.served import Served
from ablate.catalogs.suites import Suite
from ablate.errors import Location, SpecError
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.facts import Facts
from ablate.plan.stage import Stage


def served_policies(
    loaded: LoadedExperiment, facts: Facts, suites: Iterable[Suite], released: Callable[[str, Location], Stage]
) -> dict[str, Served]:
    """Return the servers that an experiment names by the id of the stage whose model they serve.

    ``released`` gives the stage of a model as it is. Raises SpecError for a model that is made here, and for a suite
    that compares log-likelihoods.
    """
    endpoints = loaded.experiment.evaluate.endpoints
    found: dict[str, Served] = {}
    for name, served in endpoints.items():
        place = loaded.origins.locate("evaluate", "endpoints", name)
        entry = facts.models.get(name)
        if entry is not None and entry.scratch is not None:
            raise SpecError(f"{name} is trained here, so that no server has it", location=place)
        found[released(name, place).id] = served
    for suite in suites if found else ():
        if suite.asks_likelihoods:
            raise SpecError(
                f"suite {suite.name!r} compares log-likelihoods of given texts, which servers do not give",
                location=loaded.origins.locate("evaluate", "policy"),
                hint="evaluate it in an experiment of its own, without evaluate.endpoints: on this machine",
            )
    return found


def check_served(loaded: LoadedExperiment, served: Mapping[str, Served], asked: Iterable[str]) -> None:
    """Raise SpecError for a server of a model that no stage asks (``asked``: ids of models that one does)."""
    for (name, _), stage in zip(loaded.experiment.evaluate.endpoints.items(), served, strict=True):
        if stage not in set(asked):
            raise SpecError(
                f"no policy {name} is evaluated as it is",
                location=loaded.origins.locate("evaluate", "endpoints", name),
                hint="a server responds for a policy of the grid with algorithm: none, or for a baseline",
            )
