"""Time of the mirror in MLflow: 1,000 runs with 20 metrics each, into the store's own SQLite database.

    python benchmarks/tracking.py [--runs 1000] [--metrics 20] [--uri http://…]

Prints seconds of the wall clock and of the processor (with ``--uri`` this process' own) of the first call, of a second
one that finds nothing to do, and of logging the same runs with one request a value, on a tenth of them and multiplied.
Goal: at most 25 s for the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.tracking import MlflowClient

from ablate.store import Store
from ablate.tracking.interface import tracking_uri
from ablate.tracking.mirror import mirror

PART = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--metrics", type=int, default=20)
    parser.add_argument("--uri", help="address of a server; default: the store's own database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store").open()
        write_experiment(store, options.runs, options.metrics)
        client = MlflowClient(tracking_uri=options.uri or tracking_uri(store))
        client.search_experiments()  # makes the database's tables
        first = seconds(lambda: mirror(store, "large", uri=options.uri))
        second = seconds(lambda: mirror(store, "large", uri=options.uri))
        naive = seconds(lambda: one_by_one(client, options.runs // PART, options.metrics))
    facts = {
        "runs": options.runs, "metrics": options.metrics, "first": first, "second": second,
        "one_by_one": [round(PART * value, 1) for value in naive], "faster": round(PART * naive[1] / first[1], 1),
    }  # fmt: skip
    print(json.dumps(facts))


def write_experiment(store: Store, runs: int, metrics: int) -> None:
    """Write training stages with a curve of 10 steps, so that their metrics are as many as are asked for."""
    subjects, steps = [], 10
    for run in range(runs):
        folder = store.stage(f"train-{run:08x}")
        folder.output.mkdir(parents=True)
        config = {"algorithm": "dpo", "parameters": {"beta": 0.1, "learning_rate": 5e-7, "epochs": 3}, "seed": run}
        folder.stage_json.write_text(json.dumps({"id": folder.id, "config": config, "inputs": {}}))
        lines = [
            {"step": step + 1, **{f"m{index}": run / (step + index + 1) for index in range(metrics // steps)}}
            for step in range(steps)
        ]
        folder.artifact("history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        done = {"stage": folder.id, "seconds": 9.0, "started": 1.7e9, "ended": 1.7e9 + 9, "host": "h", "gpus": [0]}
        folder.done_json.write_text(json.dumps(done))
        axes = {"algorithm": "dpo", "seed": run}
        subjects.append({"subject": "policy", "role": "cell", "label": f"seed={run}", "axes": axes,
                         "stage": folder.id, "evaluations": {}})  # fmt: skip
    plan = {"name": "large", "question": "", "subjects": subjects, "stages": {}, "created": 1.7e9}
    place = store.experiment("large")
    place.folder.mkdir()
    place.plan_json.write_text(json.dumps(plan))


def one_by_one(client: MlflowClient, runs: int, metrics: int) -> None:
    experiment = client.create_experiment("one by one")
    for number in range(runs):
        run = client.create_run(experiment).info.run_id
        for index in range(metrics):
            client.log_metric(run, f"m{index % 2}", float(number), step=index // 2)
        for name in ("algorithm", "beta", "learning_rate", "epochs", "seed"):
            client.log_param(run, name, "0")
        client.set_terminated(run)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return round(time.perf_counter() - wall, 2), round(time.process_time() - processor, 2)


if __name__ == "__main__":
    main()
