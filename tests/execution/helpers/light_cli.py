"""The command line with light stages in place of all that computes: `python light_cli.py run pocket_quick …`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import light_kinds


def wait_at_gate() -> None:
    """With LIGHT_CLI_GATE: say that this process is ready, and go on when the gate is there."""
    if gate := os.environ.get("LIGHT_CLI_GATE"):
        Path(f"{gate}-{os.getpid()}").touch()
        while not Path(gate).exists():
            time.sleep(0.0005)


light_kinds.use("light_work:pretend")

if __name__ == "__main__":
    light_kinds.run(wait_at_gate)
