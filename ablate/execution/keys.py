"""Keys of the APIs that stages ask: environment variables, which are looked for before the first stage runs."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from ablate.errors import UsageError
from ablate.plan.stage import Stage


def unset_keys(stages: Iterable[Stage], known: Collection[str] = ()) -> dict[str, str]:
    """Return the variables that these stages take keys from and that are not set, each with who takes it.

    Variables that are ``known`` to be set where the stages run are left out.
    """
    unset: dict[str, list[str]] = {}
    for stage in stages:
        for variable in _variables(stage.execution.locations):
            if variable not in known and not os.environ.get(variable):
                unset.setdefault(variable, []).append(f"{stage.kind} ({stage.execution.label})")
    return {
        variable: takers[0] + (f" and {len(takers) - 1} more stages" if takers[1:] else "")
        for variable, takers in unset.items()
    }


def require_keys(stages: Iterable[Stage]) -> None:
    """Raise UsageError for a key that is not there: hours later the stage that asks would fail for it."""
    for variable, takers in unset_keys(stages).items():
        raise UsageError(
            f"the environment variable {variable} is not set: {takers} would have no key of the API that is asked",
            hint=f"export {variable}=…, where nothing is left to ask with any value; `key` of a judge or server names"
            ' another variable, key: "" an API without a key',
        )


def _variables(locations: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the variables by which judges and a server that responds for the policy are reached."""
    asked = [*json.loads(locations.get("judges", "[]")), json.loads(locations.get("endpoint", "{}"))]
    yield from dict.fromkeys(access["key"] for access in asked if access.get("key"))
