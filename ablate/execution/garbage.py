"""What a store holds that nothing needs any more: stages that no experiment names, checkpoints of what is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.execution.slurm.ledger import open_submissions
from ablate.liveness import is_running
from ablate.store import StageFolder, Store, bytes_below


@dataclass(frozen=True)
class Garbage:
    """A folder that can go, why, and its bytes."""

    folder: Path
    why: str
    bytes: int


def find_garbage(store: Store) -> list[Garbage]:
    """Return what can go, the largest first.

    That is nothing that runs, is queued, or that an experiment's last plan names, and nothing that such a stage is
    made from.
    """
    named = {stage for name in store.experiment_names() for stage in store.experiment(name).read_plan()["stages"]}
    folders = [StageFolder(folder) for folder in (sorted(store.stages.iterdir()) if store.stages.is_dir() else ())]
    running = {stage.id for stage in folders if any(is_running(attempt) for attempt in stage.attempts())}
    busy = running | _queued(store)
    kept = named | _with_ancestors(store, busy)
    found: list[Garbage] = []
    for stage in folders:
        if stage.id in busy:
            continue
        if stage.id not in kept:
            why = f"no experiment names it: {_label(stage)}"
            found.append(Garbage(stage.folder, why, bytes_below(stage.folder)))
        elif stage.is_done():
            found += _left_over(stage)
    return sorted(found, key=lambda item: -item.bytes)


def _queued(store: Store) -> set[str]:
    return {
        stage
        for submission in open_submissions(store)
        for record in submission.arrays()
        for stages in record.elements.values()
        for stage in stages
    }


def _with_ancestors(store: Store, stages: Iterable[str]) -> set[str]:
    """Return stages and all that they are made from, as far as the store knows it."""
    waiting, found = list(stages), set[str]()
    while waiting:
        stage = store.stage(waiting.pop())
        if stage.id not in found and stage.stage_json.exists():
            waiting += [ref["stage"] for ref in stage.read_stage()["inputs"].values()]
        found.add(stage.id)
    return found


def remove(store: Store, garbage: list[Garbage]) -> list[Garbage]:
    """Delete what was found and can still go, and return it: a run may have come to need some of it since.

    A stage loses its marker first, so that none is ever done and half there.
    """
    found = {item.folder for item in garbage}
    going = [item for item in find_garbage(store) if item.folder in found]
    for item in going:
        StageFolder(item.folder).done_json.unlink(missing_ok=True)
        shutil.rmtree(item.folder)
    return going


def _left_over(stage: StageFolder) -> Iterator[Garbage]:
    """Yield checkpoints and half-made outputs that attempts left in a stage that is done."""
    for attempt in stage.attempts():
        for folder in (attempt.work, attempt.output):
            if folder.is_dir():
                yield Garbage(folder, f"{_label(stage)} is done without it", bytes_below(folder))


def _label(stage: StageFolder) -> str:
    return str(stage.read_stage()["label"]) if stage.stage_json.exists() else "not even a plan is left of it"
