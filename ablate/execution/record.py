"""Write a plan into the store: stage.json of every stage, the experiment's spec, plan and readable links."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ablate.catalogs.origins import Origins
from ablate.context import read_json, write_json, write_text
from ablate.errors import SpecError, StoreError, suggestion
from ablate.execution.estimate import note_estimate
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.facts import local_path
from ablate.plan.plan import Plan, Subject
from ablate.plan.stage import Stage
from ablate.shipped import find_by_name, search_folders
from ablate.store import ExperimentFolder, Store, file_name

WRITERS = 16
"""Files written at the same time: a disk or a file server takes many to itself at once as soon as one."""

ReadReport = Callable[[Path, Mapping[str, Any]], object]
"""Reads a layout and raises SpecError unless it fits a plan; given by the caller, for ``results`` stands beside."""

ReadClaims = Callable[[Sequence[Any], Mapping[str, Any], Origins], object]
"""Reads claims, by where the specification's keys are written, and raises SpecError unless they fit a plan."""


class Readers(NamedTuple):
    """What reads the parts of a specification that are about its results."""

    report: ReadReport
    claims: ReadClaims


def record_plan(store: Store, plan: Plan) -> ExperimentFolder:
    """Write what a run of this plan needs; stages that are there already are left as they are."""
    report = find_report(plan.loaded)
    record_stages(store, plan.stages.values())
    folder = store.experiment(plan.name)
    folder.folder.mkdir(parents=True, exist_ok=True)
    experiment = plan.loaded.experiment.model_dump(mode="json", by_alias=True)
    header = f"# resolved from {plan.loaded.file}\n" + "".join(f"# override {item}\n" for item in plan.loaded.overrides)
    write_text(folder.spec, header + yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True))
    # A rerun plans again from the file as it was written, not from the resolved copy.
    write_json(folder.source_json, {"file": str(plan.loaded.file.absolute()), "overrides": list(plan.loaded.overrides)})
    write_json(
        folder.plan_json, {**plan.as_json(), "report": None if report is None else str(report), "created": time.time()}
    )
    note_estimate(store, plan.name, plan.stages.values())
    _link_cells(store, folder, plan)
    return folder


def find_report(loaded: LoadedExperiment) -> Path | None:
    """Return the layout file that a specification names; raises SpecError when there is none.

    Looked for beside the specification, in the current folder, and by its name in the project's and shipped reports/.
    This is the one look-up: plan.json records the absolute path, and reports read that.
    """
    written = loaded.experiment.report
    if written is None:
        return None
    named, place = Path(written), loaded.origins.locate("report")
    own = local_path(written, loaded.file.parent, place)
    found = next((file for file in (own, named) if file.is_file()), None)
    found = found or find_by_name("reports", named.name, Path.cwd())
    if found is None:
        known = [file.name for folder in search_folders("reports", Path.cwd()) for file in folder.glob("*.yaml")]
        # Beside the specification are others, so that only what is near in spelling may be meant.
        known += get_close_matches(named.name, [file.name for file in own.parent.glob("*.yaml")], n=1)
        hint = suggestion(written, {str(named.parent / name) for name in known})
        raise SpecError(f"no report layout {written}", location=place, hint=hint)
    return found.absolute()


def check_report(plan: Plan, report: Path, read: ReadReport) -> None:
    """Raise SpecError for a layout that names what the plan does not have; it says who named the layout, too."""
    try:
        read(report, plan.as_json())
    except SpecError as error:
        place = plan.loaded.origins.locate("report")
        named = f"the layout is named by {place}; report: null asks for the general one"
        hint = f"{error.hint}\n  {named}" if error.hint else named
        raise SpecError(error.message, location=error.location, hint=hint) from error


def check_results(plan: Plan, report: Path | None, readers: Readers) -> None:
    """Raise SpecError for a layout, or for claims, that name what the plan does not have."""
    if report is not None:
        check_report(plan, report, readers.report)
    if plan.loaded.experiment.claims:
        readers.claims(plan.loaded.experiment.claims, plan.as_json(), plan.loaded.origins)


def record_stages(store: Store, stages: Iterable[Stage]) -> None:
    """Write stage.json of every stage that is not done, many at a time: each waits until the disk has it."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda stage: _record_stage(store, stage), stages):
            pass


def _record_stage(store: Store, stage: Stage) -> None:
    folder = store.stage(stage.id)
    facts = stage.as_json()
    if folder.stage_json.exists():
        if folder.is_done():
            return
        known = read_json(folder.stage_json)
        identity = ("kind", "revision", "config", "inputs")
        if any(known[key] != facts[key] for key in identity):
            raise StoreError(
                f"{folder.stage_json} holds another stage under the same id",
                hint="the store is damaged, or two identities collide",
            )
        if known == facts:
            return
    folder.folder.mkdir(parents=True, exist_ok=True)
    write_json(folder.stage_json, facts)


def _link_cells(store: Store, folder: ExperimentFolder, plan: Plan) -> None:
    """Keep a folder for each row, with links to its checkpoint and to what its suites found, and nothing else."""
    wanted: dict[str, Subject] = {}
    for subject in plan.subjects:
        if subject.stage not in plan.stages:  # a cell that waits for its tuning
            continue
        kind = [] if subject.subject == "policy" else [subject.subject]
        label = ",".join([*kind, *subject.words(plan.grid.axes)])
        if wanted.setdefault(file_name(label), subject).stage != subject.stage:  # labels that differ in slashes only
            wanted[file_name(f"{label} {subject.stage}")] = subject
    folder.cells.mkdir(exist_ok=True)
    for entry in folder.cells.iterdir():
        if entry.is_symlink():
            entry.unlink(missing_ok=True)
        elif entry.name not in wanted and entry.is_dir():
            _link(entry, {})
            with suppress(OSError):  # what is no link is another's, and stays
                entry.rmdir()
    for name, subject in wanted.items():
        targets = {suite: store.stage(stage).output for suite, stage in subject.evaluations.items()}
        _link(folder.cells / name, {**targets, "checkpoint": store.stage(subject.stage).artifact("model")})


def _link(folder: Path, targets: Mapping[str, Path]) -> None:
    """Let a folder have these links and no others; another run of the same experiment may do the same now."""
    folder.mkdir(exist_ok=True)
    wanted = {name: os.path.relpath(target, folder) for name, target in targets.items()}
    there = {entry.name: os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()}
    for name in there:
        if there[name] != wanted.get(name):
            (folder / name).unlink(missing_ok=True)
    for name, target in wanted.items():
        if there.get(name) != target:
            with suppress(FileExistsError):
                (folder / name).symlink_to(target)
