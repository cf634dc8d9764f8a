"""Searches over a grid with Optuna."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ablate.cli.options import DEFAULT_STORE, Gpus, Jobs, Name, Overrides, Spec, StoreOption, Threads, UnsafeCode
from ablate.cli.tune import show_tuning
from ablate.console import Json, err, out
from ablate.context import Resources
from ablate.errors import UsageError
from ablate.execution import study
from ablate.execution.slots import Machine
from ablate.experiment.loading import load_experiment
from ablate.store import Store


class _RunsByDefault(TyperGroup):
    """A group whose first word may be a specification: `ablate sweep FILE` is `ablate sweep run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name where a specification stands."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep_app = typer.Typer(cls=_RunsByDefault, no_args_is_help=True, rich_markup_mode=None)
INTERRUPTED = 130


@sweep_app.callback()
def _sweep() -> None:
    """Search a grid's keys with Optuna: `ablate sweep SPEC` runs a specification that has a section `sweep`."""


@sweep_app.command()
def run(
    spec: Spec,
    overrides: Overrides = None,
    store: StoreOption = DEFAULT_STORE,
    parallel: Annotated[
        int | None, typer.Option("--parallel", "-p", min=1, help="Trials at once; default: stages at a time.")
    ] = None,
    jobs: Jobs = None,
    threads: Threads = None,
    gpus: Gpus = None,
    unsafe_code: UnsafeCode = False,
) -> None:
    """Run trials until the sweep has them all; repeat it to go on, or beside another call to help it."""
    place = Store(store)
    place.check()
    loaded = load_experiment(study.find_specification(spec), overrides or [])
    if loaded.experiment.sweep is None:
        hint = "add a section sweep: {search: …, maximise: …, trials: …}; `ablate run` runs the grid as it is"
        hint = "`ablate run` tunes its cells, then runs them" if loaded.experiment.tune else hint
        raise UsageError(f"{loaded.file} has no section sweep", hint=hint)
    module, display = importlib.import_module("ablate.sweeps.run"), importlib.import_module("ablate.sweeps.display")
    machine = Machine.detect(jobs, threads, gpus, Resources(unsafe_code=unsafe_code))
    with display.SweepDisplay(out, loaded.experiment.sweep) as shown:
        sweeper = module.Sweeper(place, loaded, parallel or machine.jobs, shown)
        finished = module.run_sweep(sweeper, machine, shown)
    name = loaded.experiment.name
    if finished.interrupted:
        err.print("stopped; the same command continues", highlight=False)
        sys.exit(INTERRUPTED)
    if sweeper.gave_up:
        err.print(f"{name}: gave up, no trial has ended well; most often: {sweeper.gave_up}", style="red", markup=False)
        sys.exit(1)
    if sweeper.is_full:
        out.print(f"{name} has all its trials: a larger number in sweep.trials goes on", highlight=False)
    show(name, store)


@sweep_app.command()
def show(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    as_json: Json = False,
    best: Annotated[
        Path | None, typer.Option("--best", help="Write the experiment of the best trials to this file.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Draw its figures into this folder, as PDF and PNG.")
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
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        for trial in found.trials:
            out.print(display.trial_line(trial, found.sweep), markup=False, highlight=False, soft_wrap=True)
        ended = sum(trial.state.is_finished() for trial in found.trials)
        out.print(f"{name}: {ended} of {found.sweep.trials} trials; best:", highlight=False)
        for trial in found.best:
            out.print(f"  {display.trial_line(trial, found.sweep)}", markup=False, highlight=False, soft_wrap=True)
