"""The scheduler's end of the fork servers: one light (no imports), one with the training stack preloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ablate.context import Resources
from ablate.errors import StageError

PRELOADED = ("torch", "transformers", "transformers.models.llama.modeling_llama", "transformers.generation")
"""Imported before the modules of the stages that will run; nothing here computes."""


class Server:
    """A fork server as a subprocess; replies are read without blocking by whoever selects on ``descriptor``."""

    def __init__(self, modules: Iterable[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ablate.execution.forkserver", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the scheduler, which decides what to stop
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._buffer = b""
        self.log = log

    @property
    def descriptor(self) -> int:
        """The pipe its replies arrive on."""
        return _opened(self._process.stdout).fileno()

    def run(self, folder: Path, resources: Resources) -> None:
        """Ask for a stage to be run."""
        self._send({"run": str(folder), "resources": asdict(resources)})

    def stop(self, stage_id: str, *, at_checkpoint: bool = False) -> None:
        """Ask for a running stage to be stopped, once it has written a checkpoint if it writes any."""
        self._send({"stop": stage_id, "at_checkpoint": at_checkpoint})

    def replies(self) -> list[dict[str, Any]]:
        """Read what has arrived; raises StageError when the server has ended."""
        chunk = os.read(self.descriptor, 65536)
        if not chunk:
            raise self._ended()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close its input, which stops what still runs, and wait for it to end."""
        with suppress(BrokenPipeError):
            _opened(self._process.stdin).close()
        self._process.wait()
        _opened(self._process.stdout).close()
        self._log.close()

    def _send(self, message: dict[str, Any]) -> None:
        pipe = _opened(self._process.stdin)
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> StageError:
        code = self._process.wait()
        return StageError(f"the process that starts workers ended (exit code {code})", hint=f"its output: {self.log}")


def _opened(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
