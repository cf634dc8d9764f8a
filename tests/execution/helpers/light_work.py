"""Work of test stages; worker servers import it by name."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from ablate.catalogs.judges import Judge, find_template
from ablate.context import StageContext, write_json
from ablate.errors import StageError
from ablate.rewards.judge import open_judge


def write(context: StageContext) -> dict[str, Any]:
    """Make one file, after a while."""
    time.sleep(context.config.get("seconds", 0.0))
    (context.output / "made.txt").write_text(context.config["label"])
    return {"label": context.config["label"]}


def append(context: StageContext) -> None:
    """Leave a word outside the store, so that a second run would show."""
    with Path(context.config["path"]).open("a") as handle:
        handle.write(context.config["label"] + "\n")
    write(context)


def fail(context: StageContext) -> None:
    """Fail with a reason."""
    raise StageError("there are no rows")


def fail_unless(context: StageContext) -> None:
    """Fail until a file is there."""
    if not Path(context.config["path"]).exists():
        raise StageError("not yet")
    write(context)


def look_around(context: StageContext) -> None:
    """Write down what the process may use, after a while; fail if told to."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES")
    seen: dict[str, Any] = {name: os.environ.get(name) for name in names}
    if torch := sys.modules.get("torch"):
        seen["torch threads"] = torch.get_num_threads()
    time.sleep(context.config.get("seconds", 0.0))
    if context.config.get("fails"):
        raise StageError("out of memory")
    write_json(context.output / "seen.json", seen)


def slow(context: StageContext) -> None:
    """Say that it runs, then take a minute, or no time once a file ``go`` lies beside."""
    path = Path(context.config["path"])
    path.touch()
    for _ in range(600):
        if path.with_name("go").exists():
            break
        time.sleep(0.1)
    write(context)


def pretend(context: StageContext) -> dict[str, Any]:
    """Stand for any stage of a plan: make a file; while ``hold`` lies in LIGHT_WORK_FOLDER, say so and wait there."""
    folder = Path(os.environ["LIGHT_WORK_FOLDER"])
    (folder / f"running-{context.output.parents[2].name}").touch()
    if context.kind in os.environ.get("LIGHT_WORK_FAILS", "").split():
        print("the last line of the log")
        raise StageError("there are no rows")
    while (folder / "hold").exists() and context.kind == "dataset":
        time.sleep(0.05)
    time.sleep(float(os.environ.get("LIGHT_WORK_SECONDS", "0")))
    (context.output / "made.txt").write_text(context.kind)
    served = {model: urlopen(f"{url}/health").status for model, url in context.resources.judges.items()}
    return {"served": served}


def ask(context: StageContext) -> dict[str, Any]:
    """Ask a judge, who is nowhere unless the job serves it, how good a response is."""
    judge = Judge(model="m", url="http://127.0.0.1:9/v1", template=find_template("rate"))
    fields = {"prompt": context.config["label"], "response": "b"}
    [found] = open_judge(context, judge).rate([fields])
    return {"value": found.value}
