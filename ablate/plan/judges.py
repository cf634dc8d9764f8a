"""The judges of a plan: those an experiment names for its suites, and what is to be known of them before it runs."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ablate.algorithms.base import JUDGES
from ablate.catalogs.judges import SELF, judges
from ablate.catalogs.suites import Suite, find_suite
from ablate.errors import SpecError
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.facts import Facts
from ablate.plan.stage import Stage


def judged_suites(loaded: LoadedExperiment, facts: Facts) -> tuple[Facts, tuple[str, ...]]:
    """Return the facts with the experiment's judges in its suites, and the names of its suites of policies.

    Of an axis of judges each has a suite of its own, ``suite@judge``: it multiplies judging, never training. Raises
    SpecError where judges are named and no suite has one.
    """
    names, chosen = loaded.experiment.evaluate.policy, loaded.experiment.evaluate.judge
    if chosen is None:
        return facts, names
    place = loaded.origins.locate("evaluate", "judge")
    found: dict[str, Suite] = {}
    wanted: list[str] = []
    for index, name in enumerate(names):
        suite = find_suite(facts.suites, name, loaded.origins.locate("evaluate", "policy", index))
        if suite.judging is None:
            wanted.append(name)
            continue
        for panel in chosen.panels:
            own = f"{name}@{panel.name}" if chosen.is_axis else name
            found[own] = suite.judged_by(panel, own if chosen.is_axis else None, place)
            wanted.append(own)
    if not found:
        with_judge = ", ".join(name for name, suite in facts.suites.items() if suite.judging is not None)
        raise SpecError(
            "evaluate.judge names a judge, and no suite of this experiment has one",
            location=place,
            hint=f"suites with a judge: {with_judge}",
        )
    return replace(facts, suites={**facts.suites, **found}), tuple(wanted)


def repeated_suites(loaded: LoadedExperiment, facts: Facts, names: Iterable[str]) -> Facts:
    """Return the facts with the experiment's suites of policies responded to as often as it says.

    Raises SpecError where none of them can be responded to anew.
    """
    times = loaded.experiment.evaluate.repeats
    if times == 1:
        return facts
    found = {name: facts.suites[name] for name in names if name in facts.suites and facts.suites[name].repeatable}
    if not found:
        raise SpecError(
            "evaluate.repeats repeats responses, and no suite of policies asks for one response a prompt",
            location=loaded.origins.locate("evaluate", "repeats"),
        )
    return replace(facts, suites={**facts.suites, **{name: suite.repeated(times) for name, suite in found.items()}})


def limited_suites(loaded: LoadedExperiment, facts: Facts, names: Iterable[str]) -> Facts:
    """Return the facts with the experiment's suites asking as few examples as it says."""
    limit = loaded.experiment.evaluate.limit
    if limit is None:
        return facts
    found = {name: facts.suites[name].limited(limit) for name in names if name in facts.suites}
    return replace(facts, suites={**facts.suites, **found})


def judges_asked(stage: Stage) -> list[str]:
    """Return the models that a stage asks for judgements, but for the policy itself."""
    config = stage.identity.config.value
    written = [*config.get("judges", ()), config.get("judge")]
    if isinstance(config.get("annotator"), Mapping):
        written.append(config["annotator"].get("judge"))
    return [str(judge["model"]) for judge in written if isinstance(judge, Mapping) and judge["model"] != SELF]


def judges_of_training(stages: Iterable[Stage]) -> Iterator[tuple[str, str]]:
    """Yield the models that label or annotate what is learnt from, each with what it does."""
    for stage in stages:
        if stage.kind not in ("label", "train") or '"judge"' not in stage.identity.config.text:
            continue
        config = stage.identity.config.value
        if stage.kind == "label" and "judge" in config:
            yield str(config["judge"]["model"]), stage.execution.label
        for axis in JUDGES if stage.kind == "train" else ():
            if isinstance(judge := config.get(axis), Mapping):
                yield str(judge["judge"]["model"]), f"{axis} of {stage.execution.label}"


def judges_of_evaluation(stages: Iterable[Stage]) -> Iterator[str]:
    """Yield the models that judge responses of policies."""
    for stage in stages:
        if stage.kind == "judge":
            yield from (str(judge["model"]) for judge in stage.identity.config.value["judges"])


def shared_judges(stages: Iterable[Stage]) -> list[str]:
    """Return a sentence for every model that judges what policies learn from, and the policies themselves."""
    stages = list(stages)
    trained: dict[str, list[str]] = {}
    for model, what in judges_of_training(stages):
        trained.setdefault(model, []).append(what)
    return [
        f"{model} judges the evaluation and gave the labels that policies learn from ({trained[model][0]}"
        + (f" and {len(trained[model]) - 1} more" if len(trained[model]) > 1 else "")
        + "): its verdicts favour what it taught"
        for model in dict.fromkeys(judges_of_evaluation(stages))
        if model in trained and model != SELF
    ]


def retired_judges(stages: Iterable[Stage], today: datetime.date) -> list[str]:
    """Return a sentence for every judge of the plan that the catalog says is no longer offered."""
    stages = list(stages)
    asked = dict.fromkeys([*(model for model, _ in judges_of_training(stages)), *judges_of_evaluation(stages)])
    known = {judge.model: judge for judge in judges().values()}
    found = [(model, known[model].retired) for model in asked if model in known]
    return [
        f"{model} is no longer offered since {day}: name another judge (evaluate: {{judge: …}}), which tables call a "
        "substitute"
        for model, day in found
        if day is not None and day <= today
    ]
