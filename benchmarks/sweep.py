"""What trials of a sweep share: trials a minute and stages run, against the same trials as independent scripts.

    python benchmarks/sweep.py [--spec experiments/sweeps/pocket_beta.yaml] [--jobs 2] [key=value …]

- one sweep: what `ablate sweep` does. Trials share base, SFT, data and reference log-probabilities in one store.
- one script a trial: the same values again, each trial with all it needs in a store of its own.

Both run the same number of stages at a time, one thread each, and start from an empty store.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import Silent

from ablate.execution.local import run_local
from ablate.execution.record import record_plan
from ablate.execution.slots import Machine
from ablate.experiment.loading import LoadedExperiment, load_experiment
from ablate.store import Store
from ablate.sweeps.run import Sweeper, run_sweep
from ablate.trials import counted


class Listener(Silent):
    """An observer of stages and trials that prints nothing."""

    def told(self, trial: Any) -> None:
        """Say nothing."""


@dataclass
class Taken:
    """What a way took, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measured() -> Iterator[Taken]:
    """Measure wall and CPU seconds of the block, those of the processes that end within it too."""
    taken, begun, before = Taken(), time.monotonic(), _cpu()
    yield taken
    taken.wall, taken.cpu = time.monotonic() - begun, _cpu() - before


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def one_sweep(loaded: LoadedExperiment, root: Path, jobs: int) -> tuple[int, list[Mapping[str, Any]]]:
    """Run the sweep; returns the number of stages run, and the values of its trials."""
    sweeper = Sweeper(Store(root), loaded, jobs, Listener())
    run = run_sweep(sweeper, Machine(jobs, 1, ()), Listener())
    return len(run.outcomes), [trial.params for trial in counted(sweeper.study)]


def one_script_a_trial(loaded: LoadedExperiment, root: Path, jobs: int, trials: Sequence[Mapping[str, Any]]) -> int:
    """Run the cells of every trial in a store of its own; returns the number of stages run."""

    def script(number: int) -> int:
        store = Store(root / str(number)).open()
        plan = Sweeper(store, loaded, 1, Listener()).planner.one(trials[number]).plan
        record_plan(store, plan)
        return len(run_local(store, plan.stages, list(plan.stages), Machine(1, 1, ()), Listener()).outcomes)

    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(script, range(len(trials))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both ways one after the other and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, default=Path("experiments/sweeps/pocket_beta.yaml"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    loaded = load_experiment(options.spec, options.overrides)
    print(f"{'':20}{'trials':>8}{'stages':>8}{'wall s':>10}{'CPU s':>10}{'trials a minute':>17}")
    with tempfile.TemporaryDirectory() as folder:
        with measured() as taken:
            stages, trials = one_sweep(loaded, Path(folder) / "shared", options.jobs)
        _print("one sweep", len(trials), stages, taken)
        with measured() as taken:
            stages = one_script_a_trial(loaded, Path(folder) / "apart", options.jobs, trials)
        _print("one script a trial", len(trials), stages, taken)
    print(f"load of the last five minutes: {os.getloadavg()[1]:.1f}")


def _print(way: str, trials: int, stages: int, taken: Taken) -> None:
    print(
        f"{way:20}{trials:>8}{stages:>8}{taken.wall:>10.1f}{taken.cpu:>10.1f}{60 * trials / taken.wall:>17.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
