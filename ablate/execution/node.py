"""``python -m ablate.execution.node FOLDER ATTEMPT RESOURCES``: what one of several nodes does of a stage.

``srun`` starts it on each node of a job; RESOURCES is JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ablate.context import Resources
from ablate.execution import compute
from ablate.execution.nodes import this_node
from ablate.store import AttemptFolder, StageFolder, Store


def main() -> None:
    """Do this node's part and exit with its code."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a process to ask
    folder, number, resources = Path(sys.argv[1]), sys.argv[2], Resources.from_json(json.loads(sys.argv[3]))
    attempt = AttemptFolder(folder / "attempts" / number)
    sys.exit(compute.on_node(Store(folder.parents[1]), StageFolder(folder), attempt, resources, this_node(os.environ)))


if __name__ == "__main__":
    main()
