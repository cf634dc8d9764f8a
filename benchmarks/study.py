"""What sharing and warm workers save: the demo's grid three ways, wall and CPU seconds of each.

    python benchmarks/study.py [--spec experiments/pocket_quick.yaml] [--jobs 2] [key=value …]

- shared, warm: what `ablate run` does. Every stage once, workers forked from a process that has the imports.
- shared, cold: every stage once, each in a fresh Python process.
- one script a run: every cell and baseline makes all it needs in a store of its own; one process imports once a run.

All three use the same number of workers, one thread each, and start from an empty store.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablate.execution.local import run_local
from ablate.execution.record import record_plan
from ablate.execution.runner import Outcome
from ablate.execution.slots import Machine
from ablate.execution.study import make_plan
from ablate.plan.plan import Plan, Subject
from ablate.plan.stage import Stage
from ablate.store import Store


class Silent:
    """An observer that prints nothing."""

    def started(self, stage: Stage) -> None:
        """Say nothing."""

    def waiting(self, stage: Stage) -> None:
        """Say nothing."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """Report a failure: a benchmark of failed stages means nothing."""
        if outcome.status != "done":
            raise SystemExit(f"{stage.execution.label}: {outcome.status}: {outcome.message}")

    def tick(self) -> None:
        """Say nothing."""


def needed(plan: Plan, wanted: Iterable[str]) -> list[str]:
    """Return ``wanted`` and all they hang on, parents first."""
    found: set[str] = set()
    stack = list(wanted)
    while stack:
        stage = stack.pop()
        if stage not in found:
            found.add(stage)
            stack.extend(plan.stages[stage].parents)
    return [stage for stage in plan.stages if stage in found]


def shared_warm(plan: Plan, root: Path, jobs: int) -> int:
    """Run the plan as `ablate run` does; returns the number of stages run."""
    store = Store(root).open()
    record_plan(store, plan)
    return len(run_local(store, plan.stages, list(plan.stages), Machine(jobs, 1, ()), Silent()).outcomes)


def shared_cold(plan: Plan, root: Path, jobs: int) -> int:
    """Run every stage once, each in a process of its own."""
    store = Store(root).open()
    record_plan(store, plan)
    done: set[str] = set()
    waiting, running = list(plan.stages.values()), {}
    while waiting or running:
        for stage in [item for item in waiting if done.issuperset(item.parents)]:
            if len(running) < jobs:
                waiting.remove(stage)
                command = [sys.executable, "-m", "ablate.worker", str(store.stage(stage.id).folder)]
                running[stage.id] = subprocess.Popen(command)
        for stage_id, process in list(running.items()):
            if process.poll() is not None:
                if process.returncode:
                    raise SystemExit(f"{stage_id} failed")
                done.add(stage_id)
                del running[stage_id]
        time.sleep(0.01)
    return len(done)


def one_script_a_run(plan: Plan, root: Path, jobs: int) -> int:
    """Make every subject and its evaluations in a store of its own."""

    def script(numbered: tuple[int, Subject]) -> int:
        number, subject = numbered
        store = Store(root / str(number)).open()
        record_plan(store, plan)
        wanted = needed(plan, [subject.stage, *subject.evaluations.values()])
        return len(run_local(store, plan.stages, wanted, Machine(1, 1, ()), Silent()).outcomes)

    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(script, enumerate(plan.subjects)))


WAYS: dict[str, Callable[[Plan, Path, int], int]] = {
    "shared, warm workers (ablate run)": shared_warm,
    "shared, one fresh process a stage": shared_cold,
    "one script a run, nothing shared": one_script_a_run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the three ways one after the other and print their wall and CPU seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="experiments/pocket_quick.yaml")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"{'':36}{'stages':>8}{'wall s':>10}{'CPU s':>10}{'wall ratio':>12}")
    base = 0.0
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(options.spec, options.overrides, Store(Path(folder) / "store"))
            before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            stages = way(plan, Path(folder) / "store", options.jobs)
            wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        base = base or wall
        print(f"{name:36}{stages:>8}{wall:>10.1f}{cpu:>10.1f}{wall / base:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
