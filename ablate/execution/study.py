"""An experiment against a store: load and plan it, run what is missing, say how it stands."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from ablate.catalogs.pins import read_pins
from ablate.context import read_json
from ablate.errors import UnknownNameError, UsageError
from ablate.execution.display import LiveDisplay, PlainDisplay, describe_event, last_event
from ablate.execution.environment import snapshot_code
from ablate.execution.keys import require_keys
from ablate.execution.local import LocalRun, run_local
from ablate.execution.record import Readers, check_results, find_report, record_plan
from ablate.execution.slots import Machine
from ablate.execution.tuned import read_tuning
from ablate.experiment.loading import LoadedExperiment, load_experiment
from ablate.liveness import Status, stage_state
from ablate.plan.facts import Supply, gather_facts
from ablate.plan.judges import retired_judges
from ablate.plan.plan import Plan, build_plan
from ablate.plan.selection import Selection
from ablate.plan.stage import Stage
from ablate.shipped import project_datasets, search_folders
from ablate.store import AttemptFolder, StageFolder, Store

CANDIDATES = 10
"""Stages listed when the beginning of an id fits several."""


def known_experiments() -> dict[str, Path]:
    """Return the project's and the shipped experiments by name; of two with one name the project's."""
    known: dict[str, Path] = {}
    for folder in search_folders("experiments", Path.cwd()):
        for file in sorted(folder.rglob("*.yaml")):
            known.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
    return known


def find_specification(name: str) -> Path:
    """Return the file of a path, or of an experiment's name in the project's or the shipped folder.

    A name in ``.yml`` is that of a file alone, for no experiment is called so.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = known_experiments()
    bare = re.sub(r"\.ya?ml$", "", name)
    wanted = bare.removeprefix("experiments/").replace("-", "_")
    if wanted not in known or path.suffix == ".yml":
        meant = [item for item in (f"{bare}.yaml", f"{bare}.yml") if Path(item).is_file()]
        raise UnknownNameError("experiment", name, [*meant, *known])
    return known[wanted]


def make_plan(name: str, overrides: Sequence[str], store: Store, readers: Readers | None = None) -> Plan:
    """Load and plan an experiment; nothing is written but the cache of file digests.

    ``readers`` read the layout that the specification names, and its claims: what is wrong in them is an error now, not
    after hours of training.
    """
    loaded = load_experiment(find_specification(name), overrides)
    if loaded.experiment.sweep is not None:
        place = loaded.origins.locate("sweep")
        hint = f"ablate sweep {name}; `sweep=null` beside it leaves the search out"
        raise UsageError(f"{loaded.experiment.name} is a sweep", location=place, hint=hint)
    return plan_loaded(loaded, store, readers)


def plan_loaded(
    loaded: LoadedExperiment,
    store: Store,
    readers: Readers | None = None,
    supply: Supply | None = None,
    selection: Selection | None = None,
) -> Plan:
    """Plan an experiment that is loaded, see :func:`make_plan`; ``supply`` may fetch files before they are read.

    ``selection`` are the cells to plan, in place of those of the grid with the values that its tuning has found so far.
    """
    report = find_report(loaded)
    if selection is None and loaded.experiment.tune is not None:
        selection = Selection.of_tuning(read_tuning(loaded, store))
    facts = gather_facts(
        loaded,
        evals=search_folders("evals", Path.cwd()),
        digest_cache=store.cache / "digests.json",
        data_root=os.environ.get("ABLATE_DATA"),
        catalogs=project_datasets(Path.cwd()),
        pins=read_pins(Path.cwd()),
    )
    facts = facts if supply is None else replace(facts, supply=supply)
    if readers is None:
        return build_plan(loaded, facts, selection=selection)
    return build_plan(loaded, facts, lambda plan: check_results(plan, report, readers), selection)


def plan_again(name: str, store: Store, readers: Readers | None = None) -> Plan:
    """Plan an experiment of the store again, from the file and overrides of its last run."""
    folder = store.experiment(name)
    if not folder.source_json.exists():
        raise UnknownNameError("experiment of this store", name, store.experiment_names())
    source = read_json(folder.source_json)
    return make_plan(source["file"], source["overrides"], store, readers)


def not_done(store: Store, stages: Mapping[str, Stage]) -> list[Stage]:
    """Return those of these stages that have not run to their end, in their order."""
    return [stage for stage_id, stage in stages.items() if not store.stage(stage_id).is_done()]


def run_plan(
    store: Store, plan: Plan, machine: Machine, console: Console, only: Collection[str] | None = None
) -> LocalRun:
    """Record a plan in the store and run every stage that is not done, or those of ``only``, parents first.

    Raises UsageError, with nothing written, where one of them asks an API and the variable of its key is not set.
    """
    wanted = [stage.id for stage in not_done(store, plan.stages) if only is None or stage.id in only]
    require_keys(plan.stages[stage_id] for stage_id in wanted)
    store.open()
    record_plan(store, plan)
    if not wanted:
        return LocalRun()
    snapshot_code(store)
    shown = {stage_id: plan.stages[stage_id] for stage_id in wanted}
    display = LiveDisplay(console, store, shown) if console.is_terminal else PlainDisplay(console, len(wanted))
    with display:
        return run_local(store, plan.stages, wanted, machine, display)


Standing = Status | Literal["queued", "blocked", "cancelled", "unknown"]
"""How a stage stands; the words that are not the store's own are a cluster's."""


@dataclass(frozen=True)
class StageStatus:
    """How one stage stands, with a word of explanation; ``seconds`` is what a done one took."""

    id: str
    kind: str
    label: str
    status: Standing
    note: str = ""
    seconds: float | None = None


def stage_statuses(store: Store, name: str) -> list[StageStatus]:
    """Return how every stage of a recorded experiment stands."""
    plan = store.experiment(name).read_plan()
    return [
        StageStatus(i, facts["kind"], facts["label"], *_status(store.stage(i))) for i, facts in plan["stages"].items()
    ]


def _status(stage: StageFolder) -> tuple[Status, str, float | None]:
    state = stage_state(stage)
    if state.status == "done":
        record = stage.read_done() or {}
        seconds, adopted = record.get("seconds"), record.get("adopted")
        note = f"adopted from {adopted['path']}" if adopted else "" if seconds is None else f"{seconds:.1f} s"
        return state.status, note, seconds
    return state.status, state.reason or (f"attempt {state.attempt}" if state.attempt else ""), None


def derived_values(plan: Plan) -> dict[str, str]:
    """Return the keys nobody wrote, and what they were derived from."""
    experiment = plan.loaded.experiment
    written = set(plan.grid.axes)
    derived = {}
    samples = any("prompts" in cell.values for cell in plan.grid.cells)
    if samples and "prompts" not in written and experiment.prompts is None:
        derived["prompts"] = "the cell's dataset"
    if any(cell.has_reward_model for cell in plan.grid.cells):
        if "reward_model.init" not in written and "reward_model.init" not in plan.grid.fixed:
            derived["reward_model.init"] = "the cell's policy" + (", or the model under it" if plan.chains else "")
        if "reward_model.dataset" not in written and "reward_model.dataset" not in plan.grid.fixed:
            derived["reward_model.dataset"] = "the cell's dataset"
    for method in {cell.method.name: cell.method for cell in plan.grid.cells}.values():
        if method.rounds is not None and "rounds" not in written and experiment.rounds is None:
            derived["rounds"] = f"{method.name}.{method.rounds}, where the algorithm is {method.name}"
    for chain in plan.chains:
        derived[f"policy {chain}"] = f"{chain.shown}; what it does not name is the cell's"
    return derived


def warnings(plan: Plan) -> list[str]:
    """Return what is to be known of a plan before it runs: suites that are left out, and its judges."""
    today = datetime.datetime.now(datetime.UTC).date()
    gaps = [f"suite {name} is left out: {reason}" for name, reason in plan.gaps.items()]
    return [*gaps, *plan.shared_judges, *retired_judges(plan.stages.values(), today), *_most_cost(plan)]


def _most_cost(plan: Plan) -> list[str]:
    """Return what the plan's judge stages may cost at most, where each has a limit."""
    limits = [
        access.get("max_cost")
        for stage in plan.stages.values()
        if "judges" in stage.execution.locations
        for access in json.loads(stage.execution.locations["judges"])
        if access["key"]
    ]
    if not limits:
        return []
    if None in limits:
        return [f"{limits.count(None)} of {len(limits)} stages that ask a judge with a key have no max_cost"]
    return [f"judges may cost up to {math.fsum(limits):g} US dollars ({len(limits)} uses with a max_cost each)"]


def find_attempt(store: Store, prefix: str) -> AttemptFolder:
    """Return the newest attempt of the stage whose id starts so; raises UsageError where there is none."""
    stage = find_stage(store, prefix)
    attempts = stage.attempts()
    if not attempts:
        raise UsageError(f"stage {stage.id} has not run yet")
    return attempts[-1]


def find_stage(store: Store, prefix: str) -> StageFolder:
    """Return the stage whose id starts so; raises UsageError unless there is exactly one.

    Raises StoreError for a store of a newer layout.
    """
    store.check()
    names = (entry.name for entry in store.stages.iterdir()) if store.stages.is_dir() else ()
    found = sorted(name for name in names if name.startswith(prefix))
    if prefix in found:
        found = [prefix]
    if len(found) != 1:
        if not found and prefix.startswith("worker-"):
            printed = store.root / "slurm/SUBMISSION/ARRAY/INDEX.out"
            raise UsageError(f"{prefix} is a worker, not a stage", hint=f"what it printed is in {printed}")
        if not found:
            raise no_stage(prefix, str(store.root))
        raise UsageError(f"{len(found)} stages start with {prefix!r} in {store.root}", hint=_candidates(store, found))
    return store.stage(found[0])


def no_stage(prefix: str, where: str) -> UsageError:
    """Return the error for a beginning that no stage's id has."""
    hint = "ids are listed by `ablate status NAME --all`"
    return UsageError(f"no stage starts with {prefix!r} in {where}", hint=hint)


def _candidates(store: Store, ids: Sequence[str]) -> str:
    """Return the first stages of a list, a line each with id and label, and how many more there are."""
    lines = [f"{stage_id}  {store.stage(stage_id).read_stage()['label']}" for stage_id in ids[:CANDIDATES]]
    more = [f"… and {len(ids) - CANDIDATES} more: `ablate status NAME --all`"] if len(ids) > CANDIDATES else []
    return "\n  ".join([*lines, *more])


def empty_log(attempt: AttemptFolder) -> str:
    """Say that an attempt's log is empty, how its stage stands, and the last event it reported."""
    state = stage_state(StageFolder(attempt.folder.parents[1]))
    event = last_event(attempt.events)
    last = f"the last event is {describe_event(event)}" if event else "it has written no event"
    return f"the log is empty; the stage is {state.status}; {last}"


def last_lines(attempt: AttemptFolder, lines: int) -> list[str]:
    """Return the last lines of a failed attempt's log, without the traceback of an error that explains itself."""
    if not (attempt.read_failure() or {}).get("explained"):
        return tail(attempt.log, lines)
    before = itertools.takewhile(lambda line: not line.startswith("Traceback (most"), tail(attempt.log, 200))
    return list(before)[-lines:]


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a text file; none when it isn't there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]
