"""The command line with light stages in place of all that computes: `python light_cli.py run pocket_quick …`."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

from ablate.algorithms.registry import METHODS
from ablate.cli import main
from ablate.plan.kinds import KINDS, Kind


def wait_at_gate() -> None:
    """With LIGHT_CLI_GATE: say that this process is ready, and go on when the gate is there."""
    if gate := os.environ.get("LIGHT_CLI_GATE"):
        Path(f"{gate}-{os.getpid()}").touch()
        while not Path(gate).exists():
            time.sleep(0.0005)


for name in KINDS:
    KINDS[name] = Kind("light_work:pretend", heavy=False)
for name, method in METHODS.items():
    METHODS[name] = dataclasses.replace(method, entry="light_work:pretend")

if __name__ == "__main__":
    # a shell starts background jobs with SIGINT ignored, and children inherit that: tests may run in one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wait_at_gate()
    main()
