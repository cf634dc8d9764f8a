"""What the commands do where the cells of an experiment are tuned before they run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from ablate.cli.options import INTERRUPTED, READERS
from ablate.cli.slurm import print_workers, warn_of_keys
from ablate.console import err, out
from ablate.errors import UsageError
from ablate.execution import study
from ablate.execution.keys import require_keys
from ablate.execution.record import record_plan
from ablate.execution.slots import Machine
from ablate.execution.slurm.profile import LoadedProfile
from ablate.execution.slurm.status import worker_statuses
from ablate.execution.tuned import untuned
from ablate.experiment.tuning import Tuning
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.store import Store


def tuned(store: Store, what: Plan, machine: Machine) -> tuple[Plan, int]:
    """Let the groups of a plan's cells be tuned to the end; return the plan with what was found, and an exit code.

    That is 0, 1 where a group came to nothing, or 130 where this was interrupted.
    """
    if what.tuning is None:
        return what, 0
    sweeps = importlib.import_module("ablate.sweeps.run")
    code = 0
    with importlib.import_module("ablate.sweeps.display").TuningDisplay(out, what.tuning.tune) as shown:
        tuner = _tuner(store, what, machine.jobs, shown)
        if what.tuning.to_go:
            require_keys(study.not_done(store, _as_written(store, what)))
            record_plan(store.open(), what)
            _say(f"{what.name}: {_size(what.tuning, tuner)}")
            code = INTERRUPTED if sweeps.run_sweep(tuner, machine, shown).interrupted else 0
            what = study.plan_loaded(what.loaded, store, READERS)
            record_plan(store, what)
            _check_nothing_to_go(what, code)
    return what, code or _say_what_failed(what)


def _check_nothing_to_go(what: Plan, code: int) -> None:
    """Raise UsageError where groups that this run has tuned have trials to go by what another one wrote since."""
    assert what.tuning is not None
    if what.tuning.to_go and not code:
        raise UsageError(
            f"{len(what.tuning.to_go)} groups of {what.name} have trials to go again",
            hint="another run of it has more trials to go: end it, or wait, then repeat this command",
        )


def check_tuned(store: Store, what: Plan) -> int:
    """Raise UsageError unless the finished tuning of a plan's cells is that of its specification.

    Returns the exit code: 1 where a group came to nothing, which is said.
    """
    if what.tuning is None:
        return 0
    _tuner(store, what, 1, None)
    return _say_what_failed(what)


def hand_tuning_over(store: Store, what: Plan, profile: LoadedProfile, workers: int, *, dry_run: bool) -> None:
    """Hand the workers to SLURM that the tuning of a plan's cells lacks to so many, and say so."""
    assert what.tuning is not None
    target = Path("out") / what.name / "slurm" if dry_run else None
    hand_over = importlib.import_module("ablate.sweeps.cluster").hand_over
    submitted = hand_over(_tuner(store, what, 1, None), workers, None, profile, dry_run=target)
    warn_of_keys(store, _as_written(store, what), profile)
    groups = f"{len(what.tuning.to_go)} of {len(what.tuning.searched)} groups"
    _say(f"{what.name}: its cells are tuned first, {groups} have trials to go")
    print_workers(what.name, submitted, dry_run=dry_run)
    if not dry_run:
        record_plan(store, what)
        _say("the same command hands over its cells once the tuning has ended")


def _as_written(store: Store, what: Plan) -> Mapping[str, Stage]:
    """Return the stages of a plan's cells as they are written: these ask the APIs that trials and tuned cells ask."""
    return study.plan_loaded(untuned(what.loaded), store).stages


def describe_tuning(store: Store, what: Plan) -> list[str]:
    """Return lines about the size of a plan's tuning and what it has found so far; raises what a run would."""
    if what.tuning is None:
        return []
    tuner = _tuner(store, what, 1, None)
    display = importlib.import_module("ablate.sweeps.display")
    lines = [f"tuning: {_size(what.tuning, tuner)}, at most {tuner.most_stages()} stages"]
    to_go = {group.name for group in what.tuning.to_go}
    for group in what.tuning.groups:
        found = what.tuning.outcome(group)
        if not group.search:
            lines.append(f"  {group.label}: nothing is searched, it runs as it is written")
        elif found is None or group.name in to_go:
            lines.append(f"  {group.label}: {what.tuning.reason(group)}")
        else:
            lines.append(f"  {display.outcome_line(group, found, what.tuning.tune)}")
    waiting, cells = len(what.tuning.waiting), len(what.grid.cells)
    return [
        *lines,
        *([f"{waiting} of {cells} cells wait for it; the stages below are without theirs"] if waiting else []),
    ]


def show_tuning(store: Store, name: str, *, as_json: bool, other: Path | None) -> None:
    """Show the trials of every group of an experiment's cells, and what was found.

    Raises UsageError for a file that is of one sweep, ``other``.
    """
    folder = store.experiment(name)
    if other is not None:
        hint = f"`ablate run` runs it with what was found; the winners are in {folder.tuning}/*/outcome.json"
        raise UsageError(f"{name} is an experiment that is tuned, and no sweep", hint=hint)
    groups = [folder.group(path.name) for path in sorted(folder.tuning.iterdir())]
    found = {group.name: outcome for group in groups if (outcome := group.read_outcome()) is not None}
    if as_json:
        typer.echo(json.dumps({"name": name, "groups": found}, indent=1))
        return
    trial_line = importlib.import_module("ablate.sweeps.display").trial_line
    for group, outcome in found.items():
        for trial in outcome["all"]:
            _say(f"{group}: {trial_line(trial)}")
        best_one = outcome["best"]
        said = "nothing found yet" if best_one is None else f"best: trial {best_one['number']}"
        _say(f"{group}: {sum(outcome['ended'].values())} of {outcome['trials']} trials; {outcome['cause'] or said}")
    for line in worker_statuses(store, name):
        _say(f"{line.id}: {line.status}, {line.note}")


def _tuner(store: Store, what: Plan, parallel: int, listener: Any) -> Any:
    return importlib.import_module("ablate.sweeps.tuning").Tuner(store, what.loaded, what.tuning, parallel, listener)


def _size(tuning: Tuning, tuner: Any) -> str:
    count, tune = len(tuning.searched), tuning.tune
    budgets = sorted({sweeper.most for sweeper in tuner.sweepers.values()})  # a grid may have fewer points
    trials = " or ".join(map(str, budgets))
    over = " × ".join(tune.over)
    result = tune.maximise[0].removeprefix("-")
    return f"{count} group{'s' * (count != 1)} ({over}) × {trials} trials, judged by {result} with seed {tune.seed}"


def _say_what_failed(what: Plan) -> int:
    """Say which groups came to nothing, and why; return the exit code."""
    assert what.tuning is not None
    for group in what.tuning.failed:
        text = f"{group.label}: {what.tuning.reason(group)}; its cells do not run"
        err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return int(bool(what.tuning.failed))


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
