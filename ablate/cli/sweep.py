"""Searches over a grid with Optuna."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ablate.cli.options import (
    AS_USUAL,
    DEFAULT_STORE,
    INTERRUPTED,
    READERS,
    Name,
    Overrides,
    Spec,
    StoreOption,
    ThisMachine,
    spread_out,
)
from ablate.cli.slurm import On, print_workers, warn_of_keys
from ablate.cli.tune import show_tuning
from ablate.console import Json, err, out
from ablate.errors import UsageError
from ablate.execution import study
from ablate.execution.record import check_results, find_report
from ablate.execution.slurm.profile import LoadedProfile, load_profile
from ablate.execution.slurm.status import worker_statuses
from ablate.experiment.loading import LoadedExperiment, load_experiment
from ablate.plan.plan import Plan
from ablate.store import Store


class _RunsByDefault(TyperGroup):
    """A group whose first word may be a specification: `ablate sweep FILE` is `ablate sweep run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name where a specification stands."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep_app = typer.Typer(cls=_RunsByDefault, no_args_is_help=True, rich_markup_mode=None)


@sweep_app.callback()
def _sweep() -> None:
    """Search a grid's keys with Optuna: `ablate sweep SPEC` runs a specification that has a section `sweep`."""


@sweep_app.command()
@spread_out
def run(
    spec: Spec,
    overrides: Overrides = None,
    store: StoreOption = DEFAULT_STORE,
    parallel: Annotated[
        int | None, typer.Option("--parallel", "-p", min=1, help="Trials at once; default: stages at a time.")
    ] = None,
    here: ThisMachine = AS_USUAL,
    on: On = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --on: jobs that run trials, in all; default: one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --on: write the scripts, submit nothing.")] = False,
) -> None:
    """Run trials until the sweep has them all; repeat it to go on, or beside another call to help it.

    With --on, hand workers to SLURM that do so, and return.
    """
    place = Store(store)
    place.check()
    loaded = load_experiment(study.find_specification(spec), overrides or [])
    if loaded.experiment.sweep is None:
        hint = "add a section sweep: {search: …, maximise: …, trials: …}; `ablate run` runs the grid as it is"
        hint = "`ablate run` tunes its cells, then runs them" if loaded.experiment.tune else hint
        raise UsageError(f"{loaded.file} has no section sweep", hint=hint)
    if on is not None:
        here.refuse_any()
        _hand_over(place, loaded, load_profile(on), workers or 1, parallel, dry_run)
        return
    if workers is not None or dry_run:
        hint = "--parallel is trials at once on this machine; the same command in another terminal helps"
        raise UsageError(f"{'--dry-run' if workers is None else '--workers'} belongs to --on", hint=hint)
    machine = here.machine
    with _display(loaded) as shown:
        sweeper = _sweeper(place, loaded, parallel or machine.jobs, shown)
        finished = importlib.import_module("ablate.sweeps.run").run_sweep(sweeper, machine, shown)
    if finished.interrupted:
        err.print("stopped; the same command continues", highlight=False)
        sys.exit(INTERRUPTED)
    name = loaded.experiment.name
    _end_where_it_gave_up(name, sweeper.gave_up)
    if sweeper.is_full:
        is_used_up = sweeper.most == sweeper.sweep.points
        more = "its grid has no more points" if is_used_up else "a larger number in sweep.trials goes on"
        out.print(f"{name} has all its trials: {more}", highlight=False)
    show(name, store)


def plan_trial(store: Store, loaded: LoadedExperiment) -> tuple[Plan, list[str], dict[str, int]]:
    """Return the plan of a sweep's first trial, the size of all in lines and numbers; raises what the sweep would."""
    sweeper = _sweeper(store, loaded, 1, _display(loaded))
    search, trial, spelled = sweeper.sweep, sweeper.first, importlib.import_module("ablate.sweeps.space").spelled
    goals = " and ".join(search.maximise)
    shared, own = len(sweeper.shared), sweeper.own
    to_go = sweeper.unfinished if sweeper.look() else sweeper.most
    lines = [
        f"sweep: {sweeper.most} trials of {', '.join(search.search)} by {search.sampler.name}, judged by {goals}"
        + (f"; {to_go} to go" if to_go < sweeper.most else ""),
        f"at most {shared + sweeper.most * own} stages: {shared} that all trials share, and {own} of each",
        f"below: one trial, {spelled(list(trial.values.items()))}",
    ]
    return trial.plan, lines, {"trials": sweeper.most, "to_go": to_go, "shared_stages": shared, "own_stages": own}


def _display(loaded: LoadedExperiment) -> Any:
    return importlib.import_module("ablate.sweeps.display").SweepDisplay(out, loaded.experiment.sweep)


def _sweeper(store: Store, loaded: LoadedExperiment, parallel: int, listener: Any) -> Any:
    """Return a worker of a sweep; raises SpecError for what makes no sense, in its layout and its claims too."""
    sweeper = importlib.import_module("ablate.sweeps.run").Sweeper(store, loaded, parallel, listener)
    check_results(sweeper.first.plan, find_report(loaded), READERS)
    return sweeper


def _hand_over(
    store: Store, loaded: LoadedExperiment, profile: LoadedProfile, workers: int, parallel: int | None, dry_run: bool
) -> None:
    """Hand the workers to SLURM that are missing, and say so."""
    name, sweeper = loaded.experiment.name, _sweeper(store, loaded, 1, _display(loaded))
    target = Path("out") / name / "slurm" if dry_run else None
    hand_over = importlib.import_module("ablate.sweeps.cluster").hand_over
    submitted = hand_over(sweeper, workers, parallel, profile, dry_run=target)
    _end_where_it_gave_up(name, sweeper.gave_up)
    warn_of_keys(store, sweeper.possible if submitted.workers else {}, profile)
    print_workers(name, submitted, dry_run=dry_run)


def _end_where_it_gave_up(name: str, cause: str | None) -> None:
    if cause:
        err.print(f"{name}: gave up, no trial has ended well; most often: {cause}", style="red", markup=False)
        sys.exit(1)


@sweep_app.command()
def show(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    as_json: Json = False,
    best: Annotated[
        Path | None, typer.Option("--best", help="Write the experiment of the best trials to this file.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", file_okay=False, help="Draw its figures into this folder, as PDF and PNG."),
    ] = None,
) -> None:
    """Show the trials of a sweep, the best of them last; of an experiment that is tuned those of each group."""
    module, display = importlib.import_module("ablate.sweeps.show"), importlib.import_module("ablate.sweeps.display")
    place = Store(store)
    place.check()
    if place.experiment(name).tuning.is_dir():
        show_tuning(place, name, as_json=as_json, other=best or figures)
        return
    found = module.find_sweep(place, name)
    if best is not None:
        module.write_best(found, place, best)
        out.print(f"written to {best}", highlight=False)
    if figures is not None:
        drawn = importlib.import_module("ablate.sweeps.figures").write_figures(found, place, figures)
        for figure in drawn:
            out.print(f"{figure.files[0]}: {figure.caption}", markup=False, highlight=False, soft_wrap=True)
        if not drawn:
            out.print("no trial is complete: there is nothing to draw", highlight=False)
    if best is not None or figures is not None:
        return
    facts = found.as_json()
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    lines = {trial["number"]: display.trial_line(trial) for trial in facts["trials"]}
    ended = sum(trial.state.is_finished() for trial in found.trials)
    workers = [f"{line.id}: {line.status}, {line.note}" for line in worker_statuses(place, name)]
    best_lines = [f"  {lines[number]}" for number in facts["best"]]
    said = "best:" if best_lines else "nothing found yet"
    for text in (*lines.values(), f"{name}: {ended} of {found.sweep.most} trials; {said}", *best_lines, *workers):
        out.print(text, markup=False, highlight=False, soft_wrap=True)
