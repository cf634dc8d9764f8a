"""Time and memory of planning: 10,000 cells are expanded, validated and planned.

    python benchmarks/plan.py [--cells 10000] [--profile]

Prints processor seconds, peak memory of this process and the number of stages. Goal: at most 2 s and 300 MB.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import sys
import tempfile
import time
from pathlib import Path

import yaml

from ablate.experiment.loading import load_experiment
from ablate.plan.facts import gather_facts
from ablate.plan.plan import Plan, build_plan
from ablate.shipped import shipped_folder

SUITES = ["pocket-factuality", "pocket-reasoning", "pocket-coding", "pocket-safety", "pocket-gold"]


def specification(cells: int) -> dict[str, object]:
    """Return a grid of two datasets, two methods, ten seeds and as many values of one parameter as are needed."""
    per_method = cells // 2
    values = [round(0.01 + 0.001 * index, 6) for index in range(per_method // 20)]
    shared = {"dataset": ["pocket-hh", "pocket-ultrafeedback"], "seed": list(range(10))}
    return {
        "name": "large",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions", "learning_rate": 1e-3},
        "ppo": {"max_prompt_length": 128, "max_response_length": 64},
        "grid": [
            {**shared, "algorithm": "dpo", "dpo.beta": values},
            {**shared, "algorithm": "ppo", "ppo.kl_coefficient": values},
        ],
        "baselines": ["base", "sft"],
        "evaluate": {"policy": SUITES, "reward_model": ["pocket-pairs", "best-of-16"]},
    }


def plan(file: Path) -> Plan:
    """Load, expand, validate and plan."""
    loaded = load_experiment(file)
    facts = gather_facts(
        loaded, evals=[shipped_folder("evals")], digest_cache=file.with_name("digests.json"), data_root=None
    )
    return build_plan(loaded, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.yaml"
        file.write_text(yaml.safe_dump(specification(options.cells), sort_keys=False), encoding="utf-8")
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(plan, file)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        begun = time.process_time()
        made = plan(file)
        seconds = time.process_time() - begun
    # Kilobytes on Linux, bytes on macOS.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    facts = {
        "cells": len(made.grid.cells),
        "stages": len(made.stages),
        "cpu_seconds": round(seconds, 2),
        "peak_mb": round(peak),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
