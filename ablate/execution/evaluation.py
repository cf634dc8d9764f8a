"""Models as they are against suites, without a specification of one's own: what it would say, and where it is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ablate.catalogs.judges import Panel
from ablate.catalogs.origins import KeyPath, Origins
from ablate.catalogs.served import Served
from ablate.catalogs.suites import Subject, find_suite, load_suites
from ablate.context import write_text
from ablate.errors import Location, UsageError
from ablate.execution import study
from ablate.experiment.loading import LoadedExperiment, read_values
from ablate.plan.plan import Plan
from ablate.shipped import search_folders
from ablate.store import Store

SUITES, MODELS, ENDPOINT = Location(file="--suites"), Location(file="MODELS"), Location(file="--endpoint")


@dataclass(frozen=True)
class Asked:
    """How suites are asked: how often, how many examples of each, who judges, which server responds for the model."""

    repeats: int = 1
    limit: int | None = None
    judge: Panel | None = None
    endpoint: Served | None = None

    def section(self, model: str) -> dict[str, Any]:
        """What differs from the defaults as keys of ``evaluate``; ``model`` is the one that a server responds for."""
        how: dict[str, Any] = {"without_data": "gap"}
        if self.repeats != 1:
            how["repeats"] = self.repeats
        if self.limit is not None:
            how["limit"] = self.limit
        if self.judge is not None:
            how["judge"] = self.judge.model_dump(mode="json", exclude_unset=True)
        if self.endpoint is not None:
            how["endpoints"] = {model: self.endpoint.model_dump(mode="json", exclude_unset=True)}
        return how


def plan_evaluation(
    store: Store,
    models: Sequence[str],
    suites: Sequence[str],
    name: str | None = None,
    asked: Asked | None = None,
) -> Plan:
    """Plan the experiment that evaluates ``models`` on ``suites``; its file is written when it is run.

    A model is a folder, a hub id with @revision or a name of the catalog. Suites are about policies or about reward
    models, not both; those whose data files are not there are gaps. Without a ``name`` the experiment is called after
    its models. Raises UsageError, SpecError, and DataError where the data of all suites are missing.
    """
    asked = asked or Asked()
    if not suites:
        raise UsageError("no suite is named", location=SUITES, hint="e.g. --suites gsm8k,ifeval")
    if asked.endpoint is not None and (len(models) > 1 or _subject_of(suites) != "policy"):
        raise UsageError(
            "a server responds for one policy", location=ENDPOINT, hint="ask for each in a call of its own"
        )
    chosen = name or "eval-" + "-".join(_short(model) for model in models)
    return study.plan_loaded(_specification(store, models, suites, chosen, asked), store)


def write_evaluation(store: Store, plan: Plan) -> None:
    """Write what was planned as a specification, from which ``ablate run`` and ``retry`` plan it again."""
    values = plan.loaded.experiment.model_dump(mode="json", exclude_unset=True, by_alias=True)
    text = "# written by `ablate eval`; `ablate run` takes it, too\n" + yaml.safe_dump(values, sort_keys=False)
    plan.loaded.file.parent.mkdir(parents=True, exist_ok=True)
    write_text(plan.loaded.file, text)


def _specification(
    store: Store, models: Sequence[str], suites: Sequence[str], name: str, asked: Asked
) -> LoadedExperiment:
    subject, named = _subject_of(suites), [_written(model) for model in models]
    rows: dict[str, Any] = {"reward_models": named}
    if subject == "policy":
        rows = {"grid": [{"algorithm": "none", "policy": named}]}
    places: dict[KeyPath, Location] = {("evaluate", subject): SUITES, ("grid",): MODELS, ("reward_models",): MODELS}
    places |= {("evaluate", "endpoints"): ENDPOINT}
    places |= {("evaluate", key): Location(file=f"--{key.removesuffix('s')}") for key in ("repeats", "judge", "limit")}
    values = {"name": name, **rows, "evaluate": {subject: list(suites), **asked.section(named[0])}}
    return read_values(values, Origins(places=places), store.experiment(name).evaluation)


def _subject_of(names: Sequence[str]) -> Subject:
    """Return what all the suites are about."""
    known = load_suites(search_folders("evals", Path.cwd()))
    about: dict[Subject, str] = {}
    for name in names:
        about.setdefault(find_suite(known, name, SUITES).subject, name)
    if len(about) > 1:
        raise UsageError(
            f"suite {about['policy']!r} is about policies and {about['reward_model']!r} about reward models",
            location=SUITES,
            hint="ask for them in two calls",
        )
    return next(iter(about))


def _written(model: str) -> str:
    """Return a model as a specification in another folder names it."""
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if model.startswith((".", "/", "~")) or model.endswith("/"):
        hint = "a hub id is written owner/name@revision"
        raise UsageError(f"{model} is no folder of a model", location=MODELS, hint=hint)
    return model


def _short(model: str) -> str:
    """Return the last part of a path or hub id, without its revision, as a name of an experiment may hold it."""
    last = Path(model.partition("@")[0]).name or "model"
    return re.sub(r"[^A-Za-z0-9._-]", "-", last)
