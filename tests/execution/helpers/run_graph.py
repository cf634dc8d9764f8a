"""Run the stages of a graph in a store and print how each ended: a scheduler in a process of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from ablate.execution.display import PlainDisplay
from ablate.execution.local import run_local
from ablate.execution.slots import Machine
from ablate.plan.fingerprint import Config
from ablate.plan.stage import Execution, Identity, Ref, Stage
from ablate.store import Store


def main(root: str, graph: str) -> int:
    stages = {}
    for facts in json.loads(Path(graph).read_text()).values():
        inputs = tuple((role, Ref(ref["stage"], ref["artifact"])) for role, ref in facts["inputs"].items())
        identity = Identity(facts["kind"], facts["revision"], Config.of(facts["config"]), inputs)
        execution = Execution(facts["entry"], facts["label"], facts["locations"], facts["heavy"])
        stages[identity.id()] = Stage(identity.id(), identity, execution)
    display = PlainDisplay(Console(stderr=True), len(stages))
    run = run_local(Store(Path(root)), stages, list(stages), Machine(2, 1, ()), display)
    print(json.dumps({stage_id: outcome.status for stage_id, outcome in run.outcomes.items()}))
    return 130 if run.interrupted else 0


if __name__ == "__main__":
    # a shell starts background jobs with SIGINT ignored, and children inherit that: tests may run in one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(*sys.argv[1:]))
