"""What it costs to hand a study to SLURM: sbatch calls and seconds, against one call a stage and submitit's arrays.

    python benchmarks/slurm.py [--stages 10 100 1000 10000] [--naive 200] [--profile slurm/example.yaml]

The study is SFT -> reward models -> trainings -> six evaluations of each, of stages that are never run: all jobs are
held, looked at once (`ablate status`), and cancelled at the end. Needs a cluster on which one may queue as many jobs.

- ablate: arrays in which every evaluation keeps step with its own training; `recorded` are the seconds before, in which
  what the stages make is written to the store.
- submitit: one array a level (SFT, reward models, …), each after all of the level before (`pip install submitit`).
- one call a stage: a script that queues stage by stage, with `afterok` on its inputs.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablate.context import write_json
from ablate.execution.record import record_stages
from ablate.execution.slurm.profile import Limits, LoadedProfile, Needs, load_profile
from ablate.execution.slurm.status import cluster_statuses
from ablate.execution.slurm.submit import submit_stages
from ablate.plan.graph import Graph
from ablate.plan.stage import Ref, Stage
from ablate.store import Store

SUITES = 6
SETS, SEEDS = 10, 3


def study(count: int) -> dict[str, Stage]:
    """Return about ``count`` stages: sets, reward models for each and seed, trainings, six evaluations of each."""
    trainings = max(1, (count - 1) // (1 + SUITES) * 7 // 8)
    graph = Graph()
    sft = graph.add("sft", {"seed": 0}, label="sft")
    for number in range(trainings):
        chosen, seed = number % min(SETS, trainings), number % SEEDS
        data = graph.add("dataset", {"set": chosen}, label=f"set {chosen}")
        inputs = {"data": data.ref(), "model": sft.ref()}
        reward = graph.add("reward_model", {"seed": seed}, inputs, label=f"reward model {chosen} {seed}")
        learnt = {**inputs, "reward": reward.ref()}
        train = graph.add("train", {"algorithm": "ppo", "n": number}, learnt, label=f"train {number}", entry="x:y")
        for suite in range(SUITES):
            graph.add("evaluate", {"suite": suite}, {"policy": Ref(train.id, "")}, label=f"{number} on suite {suite}")
    return graph.stages


def held(loaded: LoadedProfile) -> LoadedProfile:
    """Return the profile with jobs that are small, held and numerous."""
    limits = Limits(**(loaded.profile.limits.model_dump() | {"array": 10000, "submit": 100000}))
    needs = {"default": Needs.model_validate({"cpus": 1, "memory": "100M", "time": 10, "gpus": 0})}
    profile = loaded.profile.model_copy(
        update={"flags": ("--hold",), "limits": limits, "needs": needs, "gpu": None, "partitions": ()}
    )
    return replace(loaded, profile=profile)


def ours(stages: dict[str, Stage], loaded: LoadedProfile, folder: Path) -> tuple[int, float, float, float]:
    """Hand the stages over as `ablate run --on` does: calls, seconds, those before to record them, of `status` then."""
    store = Store(folder / "store").open()
    begun = time.monotonic()
    record_stages(store, stages.values())
    recorded = time.monotonic() - begun
    begun = time.monotonic()
    result = submit_stages(store, "bench", stages, loaded, lambda: None)
    seconds = time.monotonic() - begun
    looked = time_status(store, stages)
    subprocess.run(["scancel", *[job for record in result.arrays if (job := record.job)]], check=True, timeout=600)
    return len(result.arrays), seconds, recorded, looked


def time_status(store: Store, stages: dict[str, Stage]) -> float:
    """Return the seconds that it takes to see how all stages stand, which are queued."""
    plan = {stage.id: {"kind": stage.kind, "label": stage.execution.label} for stage in stages.values()}
    store.experiment("bench").folder.mkdir(parents=True)
    write_json(store.experiment("bench").plan_json, {"stages": plan, "subjects": []})
    begun = time.monotonic()
    lines = cluster_statuses(store, ["bench"])["bench"]
    seconds = time.monotonic() - begun
    assert {line.status for line in lines} == {"queued"}
    return seconds


def by_level(stages: dict[str, Stage], folder: Path) -> tuple[int, float]:
    """Queue one array a level with submitit, each after the whole level before; returns calls and seconds."""
    from submitit import SlurmExecutor  # a peer, which only this needs

    levels = Counter[int]()
    depth: dict[str, int] = {}
    for stage in stages.values():
        depth[stage.id] = 1 + max((depth[parent] for parent in stage.parents), default=-1)
        levels[depth[stage.id]] += 1
    executor = SlurmExecutor(folder)
    begun, jobs = time.monotonic(), list[str]()
    for count in levels.values():
        after = {"dependency": f"afterok:{jobs[-1]}"} if jobs else {}
        executor.update_parameters(
            mem="100M", time=10, array_parallelism=count, additional_parameters={"hold": True, **after}
        )
        made = executor.map_array(abs, range(count)) if count > 1 else [executor.submit(abs, 0)]
        jobs.append(made[0].job_id.partition("_")[0])
    seconds = time.monotonic() - begun
    subprocess.run(["scancel", *jobs], check=True, timeout=600)
    return len(jobs), seconds


def one_by_one(stages: dict[str, Stage], most: int) -> tuple[int, float]:
    """Queue the first stages each by a call of its own; returns calls and seconds, scaled to all stages."""
    begun, jobs = time.monotonic(), dict[str, str]()
    for stage in list(stages.values())[:most]:
        needed = [jobs[parent] for parent in stage.parents if parent in jobs]
        jobs[stage.id] = sbatch(*([f"--dependency=afterok:{':'.join(needed)}"] if needed else []))
    seconds = (time.monotonic() - begun) * len(stages) / len(jobs)
    subprocess.run(["scancel", *jobs.values()], check=True, timeout=600)
    return len(stages), seconds


def sbatch(*options: str) -> str:
    command = ["sbatch", "--parsable", "--hold", "--mem=100M", "--time=10", "--output=/dev/null", *options]
    answer = subprocess.run([*command, "--wrap=true"], capture_output=True, text=True, timeout=600, check=True)
    return answer.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print calls and seconds of the three ways for studies of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="*", default=[10, 100, 1000, 10000])
    parser.add_argument("--naive", type=int, default=200, help="calls of the last way; its time is scaled up from them")
    parser.add_argument("--alone", action="store_true", help="ablate alone: jobs stay in SLURM's memory for a while")
    parser.add_argument("--profile", default="slurm/example.yaml")
    options = parser.parse_args(arguments)
    loaded = held(load_profile(options.profile))
    print(f"{'stages':>8}{'recorded':>11}{'status':>10}{'ablate':>22}{'submitit':>22}{'one call a stage':>22}")
    for count in options.stages:
        stages = study(count)
        with tempfile.TemporaryDirectory() as folder:
            calls, seconds, recorded, looked = ours(stages, loaded, Path(folder))
        print(
            f"{len(stages):>8}{recorded:>9.2f} s{looked:>8.2f} s{calls:>7} calls {seconds:>6.2f} s", end="", flush=True
        )
        with tempfile.TemporaryDirectory() as folder:
            others = [] if options.alone else [by_level(stages, Path(folder)), one_by_one(stages, options.naive)]
        print("".join(f"{calls:>7} calls {seconds:>6.2f} s" for calls, seconds in others), flush=True)


if __name__ == "__main__":
    main()
