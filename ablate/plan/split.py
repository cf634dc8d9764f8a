"""Suites that tuning is judged by: validation suites, which have no example in common with what is reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ablate.catalogs.suites import Suite, trained_field
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sweep import Tune
from ablate.plan.facts import Facts

OVER_SUITES = "average"
"""A result over suites; categories are such, too."""


def tuning_suites(loaded: LoadedExperiment, tune: Tune, suites: Mapping[str, Suite]) -> dict[str, Location]:
    """Return the suites by which trials are judged, each with where it is named; those of ``tune.suites`` first.

    Raises SpecError for a result of which no suite is known, unless it is a bound of what training logs.
    """
    origins = loaded.origins
    places = {name: origins.locate("tune", "suites", index) for index, name in enumerate(tune.suites)}
    results = {tune.maximise[0].removeprefix("-"): origins.locate("tune", "maximise")}
    results |= {name: origins.locate("tune", "subject_to", name) for name in tune.subject_to}
    of_policies = [name for name, suite in suites.items() if suite.subject == "policy"]
    for name, place in places.items():
        if name not in of_policies:
            raise SpecError(
                f"no suite of policies is called {name!r}", location=place, hint=suggestion(name, of_policies)
            )
    categories = {suites[name].category for name in tune.suites}
    for name, place in results.items():
        suite = name.partition("/")[0]
        if suite in of_policies:
            places.setdefault(suite, place)
        elif trained_field(name, suites) is not None and name in tune.subject_to:
            continue  # it bounds trials, and judges none
        elif name == OVER_SUITES or name in {suite.category for suite in suites.values()}:
            if not (categories if name == OVER_SUITES else categories & {name}):
                hint = "name validation suites there, or one suite here"
                raise SpecError(
                    f"{name} is taken over suites, and tune.suites has none for it", location=place, hint=hint
                )
        else:
            raise SpecError(f"no trial has a result {name!r}", location=place, hint=suggestion(name, of_policies))
    return places


def check_split(loaded: LoadedExperiment, tune: Tune, facts: Facts, tests: Sequence[Suite]) -> None:
    """Raise SpecError for a suite of the tuning that is one of ``tests``, or shares examples with one.

    Examples are shared where a file is, by name or by content, or a split of the pocket world.
    """
    for name, place in tuning_suites(loaded, tune, facts.suites).items():
        why = "one of the suites that are reported" if name in {test.name for test in tests} else None
        for test in tests:
            shared = _shared(facts, facts.suites[name], test)
            why = why or (f"no validation suite: {test.name} reads {shared}, too" if shared else None)
        if why is not None:
            raise SpecError(f"{name} is {why}", location=place, hint=_validation_suites(facts, name, tests))


def _shared(facts: Facts, suite: Suite, test: Suite) -> str:
    """Return what two suites both read, in words; empty where nothing."""
    if suite.data.pocket and test.data.pocket and suite.data.pocket.split == test.data.pocket.split:
        return f"the {test.data.pocket.split} split of the pocket world"
    names = [name for name in suite.data.names if name in test.data.names]
    if names:
        return names[0]
    known = {digest: name for name, digest in _digests(facts, test) if digest}
    return next((known[digest] for _, digest in _digests(facts, suite) if digest in known), "")


def _digests(facts: Facts, suite: Suite) -> Iterable[tuple[str, str]]:
    """Yield the files of a suite's data with the sha256 of their content; those that aren't there have none."""
    for name in suite.data.names:
        path = None if facts.root is None else facts.root / name
        yield name, facts.digest_cache.of_file(path) if path is not None and path.is_file() else ""


def _validation_suites(facts: Facts, name: str, tests: Sequence[Suite]) -> str:
    """Return the suites that could judge trials, the nearest first."""
    own = facts.suites[name]
    free = [
        suite.name
        for suite in facts.suites.values()
        if suite.subject == "policy" and not any(_shared(facts, suite, test) for test in tests)
    ]
    alike = [other for other in free if facts.suites[other].primary == own.primary]
    alike = [other for other in alike if facts.suites[other].category == own.category] or alike
    return f"validation suites: {suggestion(name, alike or free)}"
