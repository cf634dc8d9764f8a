"""The process that computes: builds the context of a stage and calls its work. Forked, so that it can be killed."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.context import EventLog, Resources, StageContext, import_function, write_json
from ablate.errors import AblateError, OutOfMemory, StageError, StopRequested
from ablate.execution import nodes, ranks
from ablate.execution.children import forked
from ablate.execution.slots import visible_gpus
from ablate.store import AttemptFolder, StageFolder, Store

STOPPED = 130
"""Exit code of a process that stopped as it was asked to."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def start(store: Store, stage: StageFolder, attempt: AttemptFolder, resources: Resources) -> int:
    """Fork the process that computes and return its id; it ends when its parent does."""

    def work() -> int:
        _redirect(attempt.log)
        return _compute(store, stage, attempt, resources)

    return forked(work)


def _compute(store: Store, stage: StageFolder, attempt: AttemptFolder, resources: Resources) -> int:
    if resources.nodes == 1:
        return on_node(store, stage, attempt, resources)
    return _recorded(attempt, lambda: nodes.launch(stage.folder, attempt, resources))


def on_node(
    store: Store, stage: StageFolder, attempt: AttemptFolder, resources: Resources, node: ranks.Node = ranks.ALONE
) -> int:
    """Do the work of a stage, or what one of several nodes does of it; returns the exit code."""

    def work() -> int:
        _limit(resources)
        context = _context(store, stage, attempt, resources)
        function = import_function(stage.read_stage()["entry"], "the work of this stage")
        if resources.processes * node.count == 1:
            return _work(function, context, attempt)
        each = functools.partial(_work_of_rank, function, context, attempt)
        return ranks.launch(attempt, resources.processes, each, node)

    return _recorded(attempt, work)


def _work(work: Callable[[StageContext], Any], context: StageContext, attempt: AttemptFolder) -> int:
    write_json(attempt.folder / "summary.json", work(context) or {})
    return 0


def _work_of_rank(
    work: Callable[[StageContext], Any], context: StageContext, attempt: AttemptFolder, rank: ranks.Rank
) -> int:
    def part() -> int:
        summary = rank.run(work, context)
        if rank.number == 0:
            write_json(attempt.folder / "summary.json", summary or {})
        return 0

    return _recorded(attempt, part)


def _recorded(attempt: AttemptFolder, work: Callable[[], int]) -> int:
    """Do work and return its exit code; one that fails is the stage's failure, with its traceback in the log."""
    try:
        return work()
    except StopRequested:
        return STOPPED
    except Exception as error:  # noqa: BLE001 - recorded, whatever it is
        return _failed(attempt, error)


def _context(store: Store, stage: StageFolder, attempt: AttemptFolder, resources: Resources) -> StageContext:
    facts = stage.read_stage()
    return StageContext(
        kind=facts["kind"],
        config=facts["config"],
        inputs={role: store.stage(ref["stage"]).artifact(ref["artifact"]) for role, ref in facts["inputs"].items()},
        output=attempt.output,
        work=attempt.work,
        events=EventLog(attempt.events),
        locations=facts["locations"],
        previous_work=tuple(earlier.work for earlier in reversed(stage.attempts()[:-1]) if earlier.work.is_dir()),
        resources=resources,
    )


def _failed(attempt: AttemptFolder, error: Exception) -> int:
    """Record why the work failed, unless another rank has; returns the exit code."""
    shutil.rmtree(attempt.output, ignore_errors=True)  # a full disk has room again for the reason
    explained = isinstance(error, AblateError)
    message = str(error) if explained else f"{type(error).__name__}: {error}"
    failure = {"type": type(error).__name__, "message": message, "explained": explained}
    if isinstance(error, OutOfMemory):
        failure["micro_batch"] = error.micro_batch
    if attempt.read_failure() is None:
        write_json(attempt.failure_json, failure)
    traceback.print_exc()
    return 1


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _limit(resources: Resources) -> None:
    """Set the number of threads before any computation; oversubscribed processes run 10 to 20 times slower."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(resources.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    visible = visible_gpus()
    if visible is not None and max(resources.gpus, default=-1) >= len(visible):
        raise StageError(f"GPU {max(resources.gpus)} is asked for, and CUDA_VISIBLE_DEVICES names {len(visible)}")
    names = (str(gpu) if visible is None else visible[gpu] for gpu in resources.gpus)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    torch = sys.modules.get("torch")  # already there in a preloaded server: its variables were read long ago
    if torch is not None:
        torch.set_num_threads(resources.threads)
