"""The command line: one function per command, no logic of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

import ablate
from ablate.algorithms.own import load_method
from ablate.catalogs.closed import Closed
from ablate.catalogs.served import WrittenServed
from ablate.cli.algorithms import algorithms_app
from ablate.cli.data import data_app, prefetch
from ablate.cli.evaluate import grade
from ablate.cli.judge import Judging, judge
from ablate.cli.options import (
    AS_USUAL,
    DEFAULT_STORE,
    INTERRUPTED,
    READERS,
    AnyName,
    Gpus,
    Jobs,
    Name,
    Overrides,
    Spec,
    StoreOption,
    ThisMachine,
    Threads,
    UnsafeCode,
    spread_out,
    written,
)
from ablate.cli.plan import confirm_disk, print_disk, print_sizes
from ablate.cli.record import record_app
from ablate.cli.results import report, results_app
from ablate.cli.slurm import On, begun, cluster_app, follow, print_submitted, prune_queue, warn_of_keys, watch
from ablate.cli.statistics import statistics_app
from ablate.cli.store import store_app
from ablate.cli.sweep import plan_trial, sweep_app
from ablate.cli.track import track_app
from ablate.cli.tune import check_tuned, describe_tuning, hand_tuning_over, tuned
from ablate.console import Json, err, out
from ablate.context import Resources
from ablate.errors import AblateError, UsageError
from ablate.execution import evaluation, study
from ablate.execution.keys import require_keys
from ablate.execution.local import LocalRun
from ablate.execution.overview import counted, listed, overview, standing_code
from ablate.execution.slots import Machine
from ablate.execution.slurm.profile import LoadedProfile, load_profile
from ablate.execution.slurm.status import chosen_statuses
from ablate.execution.slurm.submit import ready_here, submit_plan
from ablate.experiment.loading import load_experiment
from ablate.experiment.own_methods import adopt
from ablate.experiment.schema import experiment_schema
from ablate.plan.explain import Explanation, disk_to_take, explain
from ablate.plan.plan import Plan
from ablate.shipped import init_project
from ablate.store import Store

FIRST = ("init", "plan", "run", "status", "report", "results", "sweep", "data", "algorithms", "eval")
"""Commands that the help names before all others."""


class _FirstThingsFirst(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        others = [name for name in super().list_commands(ctx) if name not in FIRST]
        return [*FIRST, *others]


app = typer.Typer(
    cls=_FirstThingsFirst,
    name="ablate",
    help=(
        "Ablate preference tuning of language models: one YAML file asks a question, one table answers it.\n\n"
        "Start with: ablate plan pocket_quick, ablate run pocket_quick, ablate report pocket-quick."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(algorithms_app, name="algorithms")
app.command("grade")(grade)
app.command("prefetch")(prefetch)
app.command("judge")(judge)
app.add_typer(cluster_app)
app.add_typer(store_app)
app.add_typer(sweep_app, name="sweep")
app.add_typer(results_app)
app.add_typer(track_app)
app.add_typer(record_app)
app.add_typer(statistics_app)


class _Served(Closed):
    """A server as the command line takes it."""

    endpoint: WrittenServed


@app.command()
def plan(
    spec: Spec,
    overrides: Overrides = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every stage that would run.")] = False,
) -> None:
    """Say what a run would do: cells, stages, what they share, what is done, what would run and why. Runs nothing.

    Of a sweep it says how many trials and stages there are, and plans the cells of one trial.
    """
    place = Store(store)
    place.check()
    loaded = load_experiment(study.find_specification(spec), overrides or [])
    more: dict[str, Any] = {}
    if loaded.experiment.sweep is not None:
        what, search, more["sweep"] = plan_trial(place, loaded)
    else:
        what = study.plan_loaded(loaded, place, READERS)
        search = describe_tuning(place, what)
    explanation = explain(what, place)
    if as_json:
        typer.echo(json.dumps({**explanation.as_json(), **more}, indent=1))
    else:
        _print_plan(explanation, place, verbose, search)


@app.command()
@spread_out
def run(
    spec: Spec,
    overrides: Overrides = None,
    store: StoreOption = DEFAULT_STORE,
    here: ThisMachine = AS_USUAL,
    on: On = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --on: write the scripts, submit nothing.")] = False,
    canary: Annotated[
        bool, typer.Option("--canary", help="With --on: one cell of each algorithm first, the rest when it ended well.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="With --on: cancel what is queued and no experiment of the store names.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --on, of a tuning: jobs that run trials, in all; default: one.")
    ] = None,
) -> None:
    """Run every stage of an experiment that is not done yet, then say how it went. Safe to stop and to repeat.

    With --on, hand the stages to SLURM and return.
    """
    place = Store(store)
    place.check()
    if on is not None:
        here.refuse_any()
        if dry_run and prune:
            raise UsageError("--dry-run submits nothing, and --prune cancels", hint="ask for them in two calls")
        what = study.make_plan(spec, overrides or [], place, READERS)
        if workers is not None and what.tuning is None:
            raise UsageError(f"{what.loaded.file} has no section tune: --workers are jobs that tune its cells")
        _submit(place, what, on, dry_run, canary, workers or 1)
        if prune:
            prune_queue(place)
        return
    for option, given in (("--dry-run", dry_run), ("--canary", canary), ("--prune", prune), ("--workers", workers)):
        if given:
            hint = "`ablate plan` says what a run on this machine would do"
            hint = "--jobs is stages at once on this machine" if option == "--workers" else hint
            raise UsageError(f"{option} belongs to --on", hint=hint)
    machine = here.machine
    _run(place, study.make_plan(spec, overrides or [], place, READERS), machine)


@app.command("eval")
def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Folders of models, hub ids with @revision, names of the catalog.")
    ],
    suites: Annotated[
        str, typer.Option(help="Suites, by comma: all about policies, or all about reward models.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="Name of the experiment; default: that of the models.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most examples of each suite, of each task or subset; default: all.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Who judges in suites that have a judge: a name, or keys: '{model: …, url: …}'.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    jobs: Jobs = None,
    threads: Threads = None,
    gpus: Gpus = None,
    unsafe_code: UnsafeCode = False,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Address of a server that responds for the model, or '{url: …, model: …, key: …}'."),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Times that policies respond anew: how much a score varies by itself.")
    ] = 1,
) -> None:
    """Evaluate models as they are on suites, and print the table: an experiment without training, kept in the store.

    A suite whose data files are not there is a gap in the table, with the reason.
    """
    place = Store(store)
    place.check()
    wanted = [suite.strip() for suite in suites.split(",") if suite.strip()]
    served = None if endpoint is None else written("--endpoint", endpoint, _Served, "endpoint").endpoint
    panel = None if judge is None else written("--judge", judge, Judging, "judge").judge
    asked = evaluation.Asked(repeats=repeat, limit=limit, judge=panel, endpoint=served)
    what = evaluation.plan_evaluation(place, models, wanted, name, asked)
    _print_warnings(what)
    require_keys(study.not_done(place, what.stages))
    evaluation.write_evaluation(place, what)
    code = _run_to_the_end(place, what, Machine.detect(jobs, threads, gpus, Resources(unsafe_code=unsafe_code)))
    if code != INTERRUPTED:
        report(what.name, store)  # with its gaps, where something failed
    if code:
        sys.exit(code)


@app.command()
@spread_out
def retry(
    name: Name,
    store: StoreOption = DEFAULT_STORE,
    here: ThisMachine = AS_USUAL,
    on: On = None,
) -> None:
    """Run again what failed or was interrupted, and what hangs on it, with the spec and overrides of the last run."""
    place = Store(store)
    place.check()
    if on is not None:
        here.refuse_any()
        _submit(place, study.plan_again(name, place, READERS), on)
        return
    _run(place, study.plan_again(name, place, READERS), here.machine)


@app.command()
def status(
    name: AnyName = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="List done stages too.")] = False,
    state: Annotated[list[str] | None, typer.Option("--state", help="Stages in this state; may be repeated.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Stages of the cells with axis=value.")] = None,
    watching: Annotated[bool, typer.Option("--watch", "-w", help="Show it again until nothing goes on.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0: all done, 3: something goes on, 1: neither.")
    ] = False,
) -> None:
    """Say how experiments stand: done, running, failed, waiting; on a cluster also what is queued and why."""
    place = Store(store)
    place.check()
    names = [name] if name else place.experiment_names()
    if watching:
        watch(place, names)
    found = chosen_statuses(place, names, state or [], where or [])
    if as_json:
        typer.echo(json.dumps({item: [vars(line) for line in lines] for item, lines in found.items()}, indent=1))
    else:
        _print_statuses(place, found, details=name is not None, everything=everything or bool(state))
    if exit_code:
        sys.exit(standing_code([line for lines in found.values() for line in lines]))


@app.command()
def logs(
    stage: Annotated[str, typer.Argument(help="Id of a stage, or its first letters and digits.")],
    store: StoreOption = DEFAULT_STORE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines shown from the end.")] = 50,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows, until the stage ends.")] = False,
) -> None:
    """Print the end of a stage's log (its newest attempt)."""
    if following:
        follow(Store(store), stage, lines)
        return
    attempt = study.find_attempt(Store(store), stage)
    typer.echo(f"# {attempt.log}", err=True)
    shown = study.tail(attempt.log, lines)
    if shown:
        typer.echo("\n".join(shown))
    else:
        typer.echo(f"# {study.empty_log(attempt)}", err=True)


@app.command()
def schema(
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help="Methods of yours whose sections it has, too: `package.module:NAME` or `./file.py:NAME`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the JSON schema of a specification, for editors."""
    for name in methods or []:
        adopt(load_method(name, Path.cwd()))
    typer.echo(json.dumps(experiment_schema(), indent=1))


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="New folder of your project.")]) -> None:
    """Start a project of your own: experiments, suites, datasets, table layouts and cluster profiles to edit."""
    written = init_project(folder)
    out.print(
        f"{len(written)} files in {folder}/; next: cd {folder} && ablate plan experiments/pocket_quick.yaml",
        highlight=False,
    )


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ablate {ablate.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Run the command line; an error meant for the user is printed without a traceback, with its exit code."""
    try:
        app()
    except AblateError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a missing permission, a full disk, a file where a folder should be: the user's to mend
        what = error.filename or " ".join(["ablate", *sys.argv[1:2]])  # an output that is full has no name
        text = f"error: {what}: {error.strerror or error}"
        err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _submit(store: Store, what: Plan, on: str, dry_run: bool = False, canary: bool = False, workers: int = 1) -> None:
    loaded = load_profile(on)
    if what.tuning is not None and what.tuning.to_go:
        hand_tuning_over(store, what, loaded, workers, dry_run=dry_run)
        return
    tuning_code = check_tuned(store, what)
    target, code = Path("out") / what.name / "slurm" if dry_run else None, tuning_code
    if not dry_run:
        confirm_disk(disk_to_take(what, store), store.root)
        code = _run_here(store, what, loaded) or tuning_code
    warn_of_keys(store, what.stages, loaded)
    print_submitted(what.name, submit_plan(store, what, loaded, dry_run=target, canary=canary), dry_run=dry_run)
    if code:
        sys.exit(code)


def _run_here(store: Store, what: Plan, loaded: LoadedProfile) -> int:
    """Run the stages that a profile leaves to this machine, one after the other; returns the exit code."""
    ready = ready_here(store, what.stages, loaded)
    if not ready:
        return 0
    machine = Machine.detect(jobs=1, threads=1, gpus=0, training=Resources(unsafe_code=loaded.profile.unsafe_code))
    finished = study.run_plan(store, what, machine, out, only=ready)
    _print_failures(store, what, finished)
    if finished.interrupted:
        err.print("stopped, and nothing is submitted; the same command continues", highlight=False)
        sys.exit(INTERRUPTED)
    return int(finished.count("done") < len(finished.outcomes))


def _run(store: Store, what: Plan, machine: Machine) -> None:
    what, tuning_code = tuned(store, what, machine)
    if tuning_code == INTERRUPTED:
        err.print(f"stopped; the same command continues, or: ablate retry {what.name}", highlight=False)
        sys.exit(INTERRUPTED)
    if code := _run_to_the_end(store, what, machine) or tuning_code:
        sys.exit(code)


def _run_to_the_end(store: Store, what: Plan, machine: Machine) -> int:
    """Run a plan, say how it went, and return the exit code."""
    finished = study.run_plan(store, what, machine, out)
    if not finished.outcomes and not finished.interrupted:
        out.print(f"{what.name}: nothing to do, all {len(what.stages)} stages are done", highlight=False)
        return 0
    _print_end(store, what, finished)
    if finished.interrupted:
        return INTERRUPTED
    return int(finished.count("done") < len(finished.outcomes))


def _print_end(store: Store, what: Plan, finished: LocalRun) -> None:
    counts = {word: finished.count(word) for word in ("done", "failed", "interrupted", "blocked")}
    if finished.interrupted:  # what hangs on an interrupted stage waits as those do that were never begun
        ended = finished.outcomes
        begun = sum(i in ended or store.stage(i).is_done() for i in what.stages) - counts.pop("blocked")
        counts["waiting"] = len(what.stages) - begun
    out.print(
        f"{what.name}: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count), highlight=False
    )
    _print_failures(store, what, finished)
    if counts["failed"]:
        err.print(f"\nsee `ablate logs STAGE`; mend the cause, then: ablate retry {what.name}", highlight=False)
    elif finished.interrupted:
        err.print(f"stopped; the same command continues, or: ablate retry {what.name}", highlight=False)
    else:
        out.print(f"next: ablate report {what.name}", highlight=False)


def _print_failures(store: Store, what: Plan, finished: LocalRun) -> None:
    for stage_id, outcome in finished.outcomes.items():
        if outcome.status == "failed":
            err.print(
                f"\nfailed: {what.stages[stage_id].execution.label} ({stage_id})\n  {outcome.message}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            for attempt in store.stage(stage_id).attempts()[-1:]:
                for line in study.last_lines(attempt, 8):
                    err.print(f"  | {line}", markup=False, highlight=False, soft_wrap=True)


def _print_warnings(what: Plan) -> None:
    for warning in study.warnings(what):
        out.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _counted(count: int, noun: str) -> str:
    """Return ``1 cell``, ``2 cells``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _print_plan(explanation: Explanation, store: Store, verbose: bool, search: Sequence[str]) -> None:
    what = explanation.plan
    out.print(
        f"{what.name}: {what.loaded.experiment.question}" if what.loaded.experiment.question else what.name,
        style="bold",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    counts = {axis: {cell.values[axis] for cell in what.grid.cells if axis in cell.values} for axis in what.grid.axes}
    varied = ", ".join(f"{axis} ({len(values)})" for axis, values in counts.items())
    out.print(f"{_counted(len(what.grid.cells), 'cell')} over {varied or 'no axis'}", highlight=False)
    for line in search:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table("stage", "in all", "done", "to run", "seconds each", box=None, pad_edge=False)
    for item in explanation.kinds:
        table.add_row(
            item.kind,
            str(item.stages),
            str(item.done),
            str(item.to_run),
            "" if item.seconds is None else f"{item.seconds:.1f}",
        )
    out.print(table)
    if what.embedded:
        typer.echo(f"embedded samples, not the released rows: {', '.join(what.embedded)}")
    out.print(
        f"{_counted(len(what.stages), 'stage')}; without sharing between cells {explanation.unshared}", highlight=False
    )
    for key, value in study.derived_values(what).items():
        out.print(f"derived: {key} = {value}", highlight=False)
    print_sizes(explanation.sizes)
    _print_warnings(what)
    if not explanation.to_run:
        is_tuned = what.tuning is None or not what.tuning.to_go
        out.print("nothing to do: all stages are done" if is_tuned else "nothing else is to be done before the tuning")
    elif explanation.seconds is None:
        out.print("no time estimate: some kinds of stages have not run in this store yet")
    else:
        assumed = "if these stages are of the size of the earlier ones of their kind in this store"
        out.print(f"about {explanation.seconds:.0f} s of work for one worker, {assumed}", highlight=False)
    if explanation.to_run:
        print_disk(explanation.disk, store.root)
    if verbose:
        for stage, why in explanation.to_run:
            out.print(f"  {stage.id}  {stage.execution.label}  [{why}]", markup=False, highlight=False, soft_wrap=True)


def _print_statuses(
    store: Store, found: Mapping[str, list[study.StageStatus]], *, details: bool, everything: bool
) -> None:
    if not found:
        out.print(f"no experiment in {store.root} yet: start one with `ablate run`", highlight=False)
    for item, lines in found.items():
        if details and out.is_terminal:
            out.print(overview(item, lines, begun(store, item)))
        else:
            out.print(f"{item}: {counted(lines)}", highlight=False)
        shown = listed(lines, everything=everything) if details else []
        for text in shown:
            out.print(text, markup=False, highlight=False, soft_wrap=True)
