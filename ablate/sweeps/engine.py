"""Optuna's side of a sweep: samplers and pruners by name, the seed of each draw, what a study is for."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GridSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from ablate.errors import Location, SpecError, UsageError, suggestion
from ablate.execution.tuned import what_is_asked
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sweep import Named, Range, Sweep
from ablate.plan.fingerprint import digest
from ablate.store import ExperimentFolder
from ablate.trials import ASKED, EXCESS

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "grid": "GridSampler",
    "gp": "GPSampler",
    "cma_es": "CmaEsSampler",
    "nsga_ii": "NSGAIISampler",
    "nsga_iii": "NSGAIIISampler",
}
PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
ONE_SEQUENCE = frozenset({"qmc", "grid"})
"""Samplers that go through one sequence, whose place Optuna keeps in the storage: their seed is the sweep's throughout.

Others draw anew for each trial from a seed of that trial, so that a continued sweep repeats nothing.
"""


def name_objectives(study: optuna.Study, sweep: Sweep) -> None:
    """Let optuna-dashboard call the objectives what the sweep does."""
    names = [name.removeprefix("-") for name in sweep.maximise]
    if study.metric_names != names:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(names)


def check_same(study: optuna.Study, sweep: Sweep, name: str, folder: ExperimentFolder, cells: str) -> None:
    """Raise UsageError where the study of a sweep was begun with other objectives, ranges, bounds or cells."""
    asked = {**what_is_asked(sweep), "experiment": cells}
    begun = study.user_attrs.get(ASKED)
    if begun is None:
        study.set_user_attr(ASKED, asked)
    elif changed := [what for what in asked if what in begun and begun[what] != asked[what]]:
        if "search" in changed:  # the cells follow from it
            changed = [what for what in changed if what != "experiment"]
        raise UsageError(
            f"the {sweep.called} {name} was begun with another {' and another '.join(changed)}",
            hint=f"give it another name, or move {' and '.join(map(str, folder.begun_with))} away to begin again",
        )


def sampler_of(sweep: Sweep, ranges: Mapping[str, Range], loaded: LoadedExperiment, drawn: int) -> BaseSampler:
    """Return the sampler of the next trial, after ``drawn``. Raises SpecError for arguments it does not have."""
    named = sweep.sampler
    place = loaded.origins.locate(sweep.section, "sampler")
    own = sweep.seed if named.name in ONE_SEQUENCE else int(digest(f"{sweep.seed}/{drawn}")[:8], 16)
    extra: dict[str, Any] = {"seed": own}
    if named.name == "grid":
        extra["search_space"] = _grid(sweep, ranges, loaded)
    if sweep.subject_to:
        extra["constraints_func"] = _excess
    return _make(optuna.samplers, SAMPLERS, "sampler", named, extra, place)  # type: ignore[no-any-return]


def tell(study: optuna.Study, trial: optuna.Trial, values: Sequence[float] | None, state: TrialState) -> FrozenTrial:
    """Tell Optuna how a trial ended; another worker may have done so."""
    if isinstance(study.sampler, GridSampler):  # told of its last point, it would stop a loop that is not Optuna's
        study.sampler = RandomSampler()
    return study.tell(trial, values, state, skip_if_finished=True)


def turned(sweep: Sweep) -> bool:
    """Tell whether a watched value is reported with its sign turned: a pruner takes it to go the objective's way."""
    if sweep.pruner is None or sweep.pruner.name == "threshold":  # which compares it with bounds, whatever the way
        return False
    return (sweep.pruner.direction == "minimise") != sweep.maximise[0].startswith("-")


def pruner_of(sweep: Sweep, loaded: LoadedExperiment) -> optuna.pruners.BasePruner:
    """Return the sweep's pruner; one that prunes nothing where none is declared."""
    if sweep.pruner is None:
        return optuna.pruners.NopPruner()
    place = loaded.origins.locate(sweep.section, "pruner")
    return _make(optuna.pruners, PRUNERS, "pruner", sweep.pruner, {}, place)  # type: ignore[no-any-return]


def _make(
    module: Any, known: Mapping[str, str], what: str, named: Named, extra: Mapping[str, Any], place: Location
) -> Any:
    if named.name not in known:
        raise SpecError(f"unknown {what} {named.name!r}", location=place, hint=suggestion(named.name, known))
    kind: Callable[..., Any] = getattr(module, known[named.name])
    parameters = [name for name in inspect.signature(kind).parameters if name not in ("seed", *extra)]
    for name in named.arguments:
        if name not in parameters:
            hint = suggestion(name, parameters)
            raise SpecError(f"{what} {named.name!r} has no argument {name!r}", location=place, hint=hint)
    for name in extra:
        if name not in inspect.signature(kind).parameters:
            raise SpecError(f"{what} {named.name!r} knows no {name.partition('_')[0]}", location=place)
    try:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            # Optuna 5 has it still, and what a sampler takes tells whether it knows constraints.
            warnings.filterwarnings("ignore", "`constraints_func` has been deprecated", FutureWarning)
            return kind(**named.arguments, **extra)
    except ImportError as error:
        raise UsageError(f"{what} {named.name!r} needs another package: {error}", location=place) from error
    except (TypeError, ValueError) as error:
        raise SpecError(f"{what} {named.name!r}: {error}", location=place) from error


def _grid(sweep: Sweep, ranges: Mapping[str, Range], loaded: LoadedExperiment) -> dict[str, Sequence[Any]]:
    place = loaded.origins.locate(sweep.section, "sampler")
    if sweep.start:  # they would take the place of points, which then were never run
        place = loaded.origins.locate(sweep.section, "start")
        raise SpecError("a grid begins with its own points", location=place, hint="leave start out")
    points: dict[str, Sequence[Any]] = {}
    for key, given in ranges.items():
        if given.points is None:
            raise SpecError(f"a grid has points: {key} needs choice, or step", location=place)
        points[key] = given.points
    return points


def _excess(trial: FrozenTrial) -> Sequence[float]:
    excess: Sequence[float] = trial.user_attrs.get(EXCESS, (0.0,))
    return excess
