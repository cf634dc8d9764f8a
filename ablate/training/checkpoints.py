"""Checkpoints that exist whole or not at all: a folder counts only with our marker, written last."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ablate.context import STOP_ASKED, stop_at_checkpoints, sync, sync_tree, write_json
from ablate.errors import StageError, StopRequested
from ablate.training.distributed import barrier, from_main, is_main

MARKER = "complete.json"
PREFIX = "checkpoint-"
REPLACED = ".replaced"
"""What the name of a checkpoint ends in while another one of its step takes its place."""
WRITING_SHARE = 0.05  # at most this share of the time goes into writing checkpoints


@dataclass(frozen=True)
class Cadence:
    """When checkpoints are written: every ``seconds`` (0: after each step), and every ``steps`` steps if given.

    What comes out of a training does not depend on it.
    """

    seconds: float = 30.0
    steps: int | None = None


class CheckpointClock:
    """Says when a checkpoint is due: never after the last step, when the model itself follows."""

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        stop_at_checkpoints()
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._start, self._pause = time.monotonic(), self.cadence.seconds

    def due(self, step: int, last: int) -> bool:
        """Whether to save after ``step`` of ``last``."""
        steps = self.cadence.steps
        counted = steps is not None and step % steps == 0
        elapsed = time.monotonic() - self._start >= self._pause
        return step < last and (counted or elapsed or STOP_ASKED.is_set())

    def save(self, folder: Path, step: int, write: Callable[[Path], None]) -> None:
        """Save a checkpoint; the next one is due later where writing this one took long.

        All processes call it, and ``write`` with one temporary folder, which the main one makes. Raises StopRequested
        in all of them where this was to be the last one.
        """
        start = time.monotonic()
        if is_main():
            save_checkpoint(folder, step, lambda temporary: write(from_main(temporary)))
        else:
            write(from_main(folder))
        barrier()
        self.restart()
        if self.cadence.seconds > 0:
            self._pause = max(self.cadence.seconds, (self._start - start) / WRITING_SHARE)
        if from_main(STOP_ASKED.is_set()):
            raise StopRequested("stopped after a checkpoint, as asked")


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None], *, keep: int = 1) -> Path:
    """Make ``folder/checkpoint-<step>`` with what ``write(temporary folder)`` puts there; return its path.

    The process may be killed, or ``write`` may fail, at any moment: the marker comes after every byte has reached the
    disk, and older checkpoints (all but the newest ``keep``, and one of the same step) are removed after that.
    """
    final, replaced = folder / f"{PREFIX}{step}", folder / f"{PREFIX}{step}{REPLACED}"
    temporary = folder / f".{PREFIX}{step}.{os.getpid()}.tmp"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    write(temporary)
    sync_tree(temporary)
    if (final / MARKER).exists():
        _remove(replaced)
        os.replace(final, replaced)  # it counts until the new one does
    _remove(final)  # of an attempt that was killed between rename and marker
    os.replace(temporary, final)
    sync(folder)
    write_json(final / MARKER, {"step": step})
    sync(final)
    for old in (replaced, *complete_checkpoints(folder)[keep:]):
        _remove(old)
    return final


def _remove(checkpoint: Path) -> None:
    if checkpoint.exists():
        (checkpoint / MARKER).unlink(missing_ok=True)  # first, so that a half-removed folder never counts
        shutil.rmtree(checkpoint)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the marked checkpoints in ``folder``, highest step first.

    Another process may be saving there: an older checkpoint of the list can be gone by the time it is opened.
    """
    marked = [path.parent for path in folder.glob(f"{PREFIX}*/{MARKER}")]
    return sorted(marked, key=lambda path: (checkpoint_step(path), not path.name.endswith(REPLACED)), reverse=True)


def latest_checkpoint(folders: Iterable[Path]) -> Path | None:
    """Return the marked checkpoint with the highest step in ``folders`` (the earlier folder on a tie), or None."""
    newest = [found[0] for folder in folders if (found := complete_checkpoints(folder))]
    return max(newest, key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the optimiser step after which ``checkpoint`` was written: its name says it, so nothing is opened."""
    step = checkpoint.name.removeprefix(PREFIX).removesuffix(REPLACED)
    if not step.isdecimal():
        raise StageError(f"{checkpoint} is not named {PREFIX}<step>; remove this folder")
    return int(step)
