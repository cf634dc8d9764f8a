"""The command line where a policy's gold reward is a known function of beta: `python light_sweep.py sweep SPEC …`."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import light_kinds

from ablate.context import StageContext, write_json
from ablate.errors import StageError

BEST = 0.5
"""The beta that earns the most."""


def work(context: StageContext) -> dict[str, Any]:
    """Pass on what the policy earns; a training stage says what it is, as it would over its steps, and checkpoints."""
    value = _value(context)
    if context.kind == "train":
        if context.config["parameters"]["beta"] > float(os.environ.get("FAILS_FROM", "inf")):
            raise StageError("the loss is NaN")
        for step in range(1 + _last_step(context), 1 + int(os.environ.get("LIGHT_STEPS", "1"))):
            context.events.log(step=step, reward=value)
            (context.work / "step").write_text(str(step))
            time.sleep(float(os.environ.get("LIGHT_STEP_SECONDS", "0")))
        if str(context.config["parameters"]["beta"]) == os.environ.get("SLOW_BETA"):
            time.sleep(3.0)
        while (gate := os.environ.get("LIGHT_GATE")) and not Path(gate).exists():
            time.sleep(0.1)
    time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")) if context.kind == "train" else 0.0)
    if context.kind == "train":
        lines = (json.dumps({"step": step, "kl": step * context.config["parameters"]["beta"]}) for step in range(1, 21))
        (context.output / "history.jsonl").write_text("\n".join(lines))
    write_json(context.output / "value.json", value)
    if context.kind == "evaluate":
        write_json(context.output / "metrics.json", {"score": value, "metrics": [], "health": {}, "protocol": {}})
    return {}


def _last_step(context: StageContext) -> int:
    """Return the step that an earlier attempt came to."""
    files = (folder / "step" for folder in context.previous_work)
    return max((int(file.read_text()) for file in files if file.exists()), default=0)


def _value(context: StageContext) -> float | None:
    if context.kind == "train":
        return -abs(math.log(context.config["parameters"]["beta"] / BEST))
    for path in context.inputs.values():
        files = [folder / "value.json" for folder in (path, path.parent)]  # the artifact may be the whole output
        for file in filter(Path.exists, files):
            if (found := json.loads(file.read_text())) is not None:
                return float(found)
    return None


light_kinds.use("light_sweep:work")

if __name__ == "__main__":
    light_kinds.run()
