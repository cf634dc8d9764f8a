"""``python -m ablate.worker FOLDER``: run one stage in a process of its own, as a cluster job does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablate.context import Resources
from ablate.execution.runner import EXIT_CODES, run_stage


def main() -> None:
    """Run the stage and exit: 0 done, 1 failed, 3 inputs missing, 4 runs elsewhere, 5 lease lost, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m ablate.worker", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder of the stage, store/stages/<id>")
    parser.add_argument("--threads", type=int, default=1, help="threads of the computing process")
    parser.add_argument("--gpus", type=int, nargs="*", default=[], help="indices of the GPUs it may use")
    parser.add_argument("--micro-batch", type=int, help="most rows in one forward pass; default: chosen by memory")
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0, help="seconds between two checkpoints")
    parser.add_argument("--processes", type=int, default=1, help="processes that train one model together")
    parser.add_argument(
        "--frozen", choices=["device", "host", "other-gpu"], default="device", help="where PPO keeps them"
    )
    parser.add_argument("--sharding", choices=["ddp", "zero2", "zero3"], help="how processes share a model")
    parser.add_argument("--rollout-server", help="address of a vLLM server that samples for on-policy methods")
    parser.add_argument("--unsafe-code", action="store_true", help="run generated programs without a sandbox")
    options = parser.parse_args()
    resources = Resources(
        options.threads,
        tuple(options.gpus),
        options.micro_batch,
        options.checkpoint_seconds,
        options.processes,
        options.frozen,
        options.rollout_server,
        options.unsafe_code,
        options.sharding,
    )
    outcome = run_stage(options.folder, resources)
    if outcome.message:
        print(f"{outcome.stage}: {outcome.status}: {outcome.message}", file=sys.stderr)
    sys.exit(EXIT_CODES[outcome.status])


if __name__ == "__main__":
    main()
