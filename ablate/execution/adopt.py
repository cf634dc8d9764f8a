"""An existing checkpoint becomes the output of a stage: checked first, then published like what a stage makes."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.algorithms.registry import METHODS
from ablate.catalogs.digests import DigestCache
from ablate.context import Resources
from ablate.errors import UsageError
from ablate.execution import lease
from ablate.execution.runner import publish, run_stage
from ablate.store import StageFolder, Store

STARTS_FROM = {"sft": "model", "reward_model": "model", "train": "policy", "merge": "model-0"}
"""Role of the model that a stage's own has the shape of."""
ADOPTED = ("pretrain", "sft", "reward_model", "train")


def adopt(store: Store, stage: StageFolder, checkpoint: Path) -> None:
    """Make a copy of a checkpoint the model of a stage that is not done.

    Config, weights and tokenizer are compared with the model that the stage starts from; what of that is not done yet
    is run. Raises UsageError or DataError, with nothing published, where the checkpoint does not fit, where others
    need more of the stage than its model, or where it is at work elsewhere.
    """
    facts = stage.read_stage()
    _require_adoptable(store, stage, facts, checkpoint)
    like, tokenizer = _origin(store, stage)
    files: list[Path] = importlib.import_module("ablate.models.adopted").examine(
        checkpoint,
        like,
        tokenizer,
        chat=stage.kind != "pretrain",
        reward_loss=facts["config"]["parameters"]["loss"] if stage.kind == "reward_model" else None,
    )
    digests = DigestCache(store.cache / "digests.json")
    adopted = {"path": str(checkpoint), "sha256": digests.of_folder(checkpoint)}
    digests.save()
    _publish(stage, files, adopted)


def _require_adoptable(store: Store, stage: StageFolder, facts: Mapping[str, Any], checkpoint: Path) -> None:
    if stage.is_done():
        raise UsageError(f"{stage.id} is done: what it made is kept")
    if stage.kind not in ADOPTED:
        raise UsageError(
            f"{stage.id} makes no model by training: {facts['label']}", hint=f"kinds: {', '.join(ADOPTED)}"
        )
    if not checkpoint.is_dir():
        raise UsageError(f"there is no folder {checkpoint}")
    if _conditions_prompts(facts):
        raise UsageError(f"{facts['label']}: its training makes a chat template, which no checkpoint of elsewhere has")
    for child, artifact in _wanted_artifacts(store, stage):
        if artifact not in ("", "model"):
            raise UsageError(f"{child} reads {artifact} of {stage.id}, and a checkpoint has a model alone")


def _conditions_prompts(facts: Mapping[str, Any]) -> bool:
    method = METHODS.get(facts["config"].get("algorithm", ""))
    return method is not None and method.conditions_prompts


def _wanted_artifacts(store: Store, stage: StageFolder) -> Iterator[tuple[str, str]]:
    """Yield the stages that take something of a stage in, with what it is."""
    for folder in sorted(store.stages.iterdir()):
        other = StageFolder(folder)
        for ref in other.read_stage()["inputs"].values() if other.stage_json.exists() else ():
            if ref["stage"] == stage.id:
                yield other.id, ref["artifact"]


def _origin(store: Store, stage: StageFolder) -> tuple[Path | Mapping[str, Any], Path]:
    """Return a model of the stage's shape, or its architecture, and its tokenizer, of the nearest stage done."""
    facts = stage.read_stage()
    if stage.kind == "pretrain":
        tokenizer = facts["inputs"]["tokenizer"]
        return facts["config"]["architecture"], _made(store, tokenizer["stage"]).artifact(tokenizer["artifact"])
    parent = store.stage(facts["inputs"][STARTS_FROM[stage.kind]]["stage"])
    if parent.kind == "model" or parent.is_done():
        model = _made(store, parent.id).artifact("model")
        return model, model
    if _conditions_prompts(parent.read_stage()):
        raise UsageError(f"{stage.id} has the chat template of {parent.id}, which is not done", hint="run that first")
    return _origin(store, parent)


def _made(store: Store, stage_id: str) -> StageFolder:
    """Run a stage, and what it needs, unless it is done."""
    stage = store.stage(stage_id)
    if not stage.is_done():
        for ref in stage.read_stage()["inputs"].values():
            _made(store, ref["stage"])
        outcome = run_stage(stage.folder, Resources())
        if outcome.status != "done":
            raise UsageError(
                f"{stage_id}, with which the checkpoint is compared, is {outcome.status}: {outcome.message}",
                hint=f"see `ablate logs {stage_id}`",
            )
    return stage


def _publish(stage: StageFolder, files: list[Path], adopted: Mapping[str, str]) -> None:
    attempt = lease.claim(stage)
    if attempt is None:
        raise UsageError(f"another process is at work on {stage.id}")
    try:
        target = attempt.output / "model"
        target.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, target / path.name)
        now = {"ended": time.time(), "host": os.uname().nodename}
        record = {"stage": stage.id, "attempt": attempt.number, "adopted": dict(adopted), "summary": {}}
        publish(stage, attempt, record | now)
    except BaseException:
        shutil.rmtree(attempt.folder, ignore_errors=True)  # as if it had never been tried
        raise
    lease.end(attempt, "done")
