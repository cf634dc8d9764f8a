"""What the commands print and ask for that have to do with SLURM."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from ablate.cli.options import DEFAULT_STORE, Name, StoreOption
from ablate.console import Json, out
from ablate.errors import UsageError
from ablate.execution import study
from ablate.execution.estimate import Times, times
from ablate.execution.keys import unset_keys
from ablate.execution.overview import counted, in_words, overview, standing_code
from ablate.execution.slurm import control
from ablate.execution.slurm import usage as accounting
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.doctor import examine
from ablate.execution.slurm.profile import LoadedProfile, load_profile
from ablate.execution.slurm.shapes import on_login, services_of
from ablate.execution.slurm.status import Handed, cluster_statuses
from ablate.execution.slurm.submit import Submitted
from ablate.liveness import stage_state
from ablate.plan.stage import Stage
from ablate.store import Store

WATCH_SECONDS = 10.0
"""Between two looks: each is one squeue call and at most one sacct call."""
QUIET_LOOKS = 3
"""Looks in a row at which stages wait and none runs, before a run counts as ended: it may be about to begin one."""
FOLLOW_SECONDS = 1.0

On = Annotated[
    str | None,
    typer.Option("--on", help="Profile of a SLURM cluster, a file or a name in slurm/; default: this machine."),
]


def warn_of_keys(store: Store, stages: Mapping[str, Stage], loaded: LoadedProfile) -> None:
    """Say which variables of APIs' keys are set neither here nor by the profile; its shell lines may still set them."""
    here = on_login(stages, loaded)
    on_nodes = [stage for stage in study.not_done(store, stages) if stage.id not in here]
    asking = [stage for stage in on_nodes if not services_of(stage, loaded.profile)]
    for variable, takers in unset_keys(asking, loaded.profile.environment).items():
        text = f"warning: {variable} is set neither here nor in the profile: on a node {takers} may have no key"
        out.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_submitted(name: str, result: Submitted, *, dry_run: bool = False) -> None:
    """Say what was handed to SLURM, what was there already, and what is next."""
    if dry_run:
        hours = f", up to {result.gpu_hours:.1f} GPU hours" if result.gpu_hours else ""
        _say(f"{name}: {result.stages} stages as {len(result.arrays)} job arrays{hours}; nothing is submitted")
        _say(f"the scripts: {result.folder}/")
        _say_what_is_left_out(result)
        return
    if not result.arrays:
        words = f"all that is not done is queued ({result.queued} stages)" if result.queued else "all stages are done"
        _say(f"{name}: nothing to submit{'' if result.here and not result.queued else f', {words}'}")
        _say_what_is_left_out(result)
        return
    queued = f"; {result.queued} were queued already" if result.queued else ""
    _say(f"{name}: {result.stages} stages submitted as {len(result.arrays)} job arrays{queued}")
    _say_what_is_left_out(result)
    _say(f"next: ablate status {name} --watch")


def print_workers(name: str, result: Submitted, *, dry_run: bool = False) -> None:
    """Say how many workers of a sweep were handed to SLURM, how many were there already, and what is next."""
    count = f"{result.workers} {'worker' if result.workers == 1 else 'workers'}"
    hours = f", up to {result.gpu_hours:.1f} GPU hours" if result.gpu_hours else ""
    if result.workers and dry_run:
        _say(f"{name}: {count}{hours}; nothing is submitted")
        _say(f"the scripts: {result.folder}/")
    elif result.workers:
        _say(f"{name}: {count} submitted{hours}{f'; {result.queued} were there already' if result.queued else ''}")
    elif result.queued:
        _say(f"{name}: no worker is missing, {result.queued} are at work or queued")
    else:
        _say(f"{name}: nothing to submit, no trial is left to run")
    _say_what_is_left_out(result)
    if not dry_run:
        _say(f"next: ablate sweep show {name}, ablate status {name}")


def _say_what_is_left_out(result: Submitted) -> None:
    if result.excluded:
        _say(f"not sent to {', '.join(result.excluded)}, where jobs were lost before")
    if result.left:
        what = "workers" if result.workers else "stages"
        _say(f"{result.left} {what} do not fit limits.submit: repeat the command when some have ended")
    if result.here:
        hang = f", and {result.behind} hang on them" if result.behind else ""
        _say(f"{len(result.here)} stages are for this machine{hang}: repeat the command when what they need is done")


def prune_queue(store: Store) -> None:
    """Cancel, when confirmed, what is queued and no experiment of the store names any more."""
    stale = control.unnamed_jobs(store)
    if not stale:
        _say("nothing to prune: all that is queued belongs to an experiment of the store")
        return
    if _confirmed(store, stale):
        _say(f"{_jobs(control.cancel(store, stale))} cancelled")


def _confirmed(store: Store, live: Mapping[str, Handed]) -> bool:
    """List stages and workers, and ask whether their jobs are to be cancelled."""
    for known, item in live.items():
        _say(f"  {known}  {store.stage(known).read_stage()['label'] if item.stages else 'worker of the sweep'}")
    workers = sum(not item.stages for item in live.values())
    named = [
        f"{count} {what}{'s' * (count != 1)}"
        for count, what in ((len(live) - workers, "stage"), (workers, "worker"))
        if count
    ]
    return typer.confirm(f"cancel the jobs of {' and '.join(named)}?")


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def watch(store: Store, names: Sequence[str]) -> None:
    """Show how experiments stand, again and again until nothing of them goes on; Ctrl-C ends the watching alone.

    Where the output is no terminal, a line is printed whenever the counts have changed.
    """
    quiet, said = 0, dict[str, str]()
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False, transient=True) as live:
        while True:
            found = cluster_statuses(store, names)
            if out.is_terminal:
                shown = (overview(name, lines, begun(store, name)) for name, lines in found.items())
                live.update(Group(*shown), refresh=True)
            else:
                counts = {name: counted(lines) for name, lines in found.items()}
                for name in (name for name, text in counts.items() if said.get(name) != text):
                    _say(f"{time.strftime('%H:%M:%S')}  {name}: {counts[name]}")
                said = counts
            lines = [line for own in found.values() for line in own]
            quiet = 0 if standing_code(lines) == 3 else quiet + 1
            if quiet == QUIET_LOOKS or (quiet and all(line.status != "waiting" for line in lines)):
                return
            time.sleep(WATCH_SECONDS)


def begun(store: Store, name: str) -> float:
    """Return when an experiment was last run, in seconds since the epoch."""
    return float(store.experiment(name).read_plan()["created"])


def follow(store: Store, prefix: str, lines: int) -> None:
    """Print a stage's log as it grows: newer attempts too, until the stage is done or has failed."""
    stage = study.find_stage(store, prefix)
    shown: dict[Path, int] = {}
    with suppress(KeyboardInterrupt):
        while True:
            settled = stage_state(stage).status in ("done", "failed")
            for file in control.log_files(store, stage.id):
                if file not in shown:
                    typer.echo(f"# {file}", err=True)
                    typer.echo("".join(f"{line}\n" for line in study.tail(file, lines)), nl=False)
                    shown[file] = file.stat().st_size
                with file.open(encoding="utf-8", errors="replace") as handle:
                    handle.seek(shown[file])
                    typer.echo(handle.read(), nl=False)
                    shown[file] = handle.tell()
            if settled:
                return
            time.sleep(FOLLOW_SECONDS)


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


cluster_app = typer.Typer()
Beginnings = Annotated[
    list[str] | None,
    typer.Argument(help="Stages or workers, by the beginnings of their ids; default: all.", show_default=False),
]
StageName = Annotated[str, typer.Argument(help="Id of a stage, or its first letters and digits.", show_default=False)]


@cluster_app.command()
def cancel(
    name: Name,
    stages: Beginnings = None,
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Cancel what is queued or runs of an experiment on a cluster; what is done stays, `ablate run --on` goes on."""
    place = _opened(store)
    live = control.live_jobs(place, name, stages or [])
    if not live:
        _say(f"{name}: nothing of it is queued or runs")
        return
    if not yes and not _confirmed(place, live):
        raise typer.Exit(1)
    _say(f"{name}: {_jobs(control.cancel(place, live))} cancelled")


@cluster_app.command()
def hold(name: Name, stages: Beginnings = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Keep queued stages of an experiment from starting, until `ablate release`."""
    held, started = control.hold(control.live_jobs(_opened(store), name, stages or []))
    _say(f"{name}: {held} jobs held{f'; {started} have started and go on' if started else ''}")


@cluster_app.command()
def release(name: Name, stages: Beginnings = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Let held stages of an experiment start."""
    _say(f"{name}: {control.release(control.live_jobs(_opened(store), name, stages or []))} jobs released")


@cluster_app.command()
def usage(name: Name, store: StoreOption = DEFAULT_STORE, as_json: Json = False) -> None:
    """Say what an experiment took, beside its estimate; of a cluster: GPU hours, waiting, use of the cores."""
    place = _opened(store)
    taken, silent = times(place, name), ""
    lines: list[accounting.Usage] | None
    try:
        lines = accounting.usage(place, name)
    except SlurmError as error:
        lines, silent = None, error.message
    if as_json:
        cluster = None if lines is None else [asdict(line) for line in lines]
        facts = {"stages": [asdict(line) for line in taken], "cluster": cluster}
        typer.echo(json.dumps(facts | ({"cluster_reason": silent} if silent else {}), indent=1))
        return
    _print_times(taken)
    if lines:
        _print_accounted(lines)
    if silent:
        _say(f"GPU hours, waiting and use of the cores are not known, the accounting does not answer: {silent}")


def _print_times(taken: Sequence[Times]) -> None:
    table = Table("stage", "done", "estimated", "took", box=None, pad_edge=False)
    for line in taken:
        estimate = "" if line.estimated is None else in_words(3600 * line.estimated)
        table.add_row(line.kind, f"{line.done}/{line.stages}", estimate, in_words(3600 * line.took))
    out.print(table)


def _print_accounted(lines: Sequence[accounting.Usage]) -> None:
    table = Table("kind", "tries", "GPU hours", "core hours", "median wait", "CPU use", box=None, pad_edge=False)
    for line in lines:
        wait = "" if line.wait_seconds is None else in_words(line.wait_seconds)
        share = "" if line.cpu_share is None else f"{line.cpu_share:.0%}"
        table.add_row(line.kind, str(line.tries), f"{line.gpu_hours:.2f}", f"{line.core_hours:.2f}", wait, share)
    sums = accounting.total(lines)
    table.add_row("in all", str(sums["tries"]), f"{sums['gpu_hours']:.2f}", f"{sums['core_hours']:.2f}")
    out.print(table)


@cluster_app.command()
def why(stage: StageName, store: StoreOption = DEFAULT_STORE) -> None:
    """Say why a stage does not run, or how it ended: its inputs, its job, its logs."""
    place = _opened(store)
    found = study.find_stage(place, stage)
    name = control.experiment_of(place, found.id)
    if name is None:
        raise UsageError(f"no experiment of {place.root} has stage {found.id}")
    for line in control.why(place, name, found.id):
        _say(line)


@cluster_app.command()
def doctor(
    on: Annotated[str, typer.Option("--on", help="Profile of a SLURM cluster, a file or a name in slurm/.")],
    store: StoreOption = DEFAULT_STORE,
    node: Annotated[bool, typer.Option("--node/--no-node", help="Run a small job that looks around a node.")] = True,
) -> None:
    """Check a profile against its cluster: limits, nodes, a shared store, Python there; say what to change."""
    findings = examine(load_profile(on), Store(store), on_node=node)
    for finding in findings:
        _say(f"{'ok    ' if finding.well else 'CHANGE'}  {finding.text}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def _opened(store: Path) -> Store:
    place = Store(store)
    place.check()
    return place
