"""The command line where each group of policies earns the most elsewhere: `python light_tuning.py run SPEC …`.

On the test split it earns the opposite, so that a search that saw it would end up far from the best.
"""

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

BEST = {("dpo", "hh"): 0.1, ("dpo", "uf"): 1.0, ("ppo", "hh"): 0.05, ("ppo", "uf"): 0.5}
"""The strength of the KL penalty that earns the most, by algorithm and preferences."""
KEYS = {"dpo": "beta", "ppo": "kl_coefficient"}


def work(context: StageContext) -> dict[str, Any]:
    """Pass on which preferences and which split a stage is about, and what its policy earns."""
    facts = _inherited(context)
    config = context.config
    if context.kind == "pocket" and config["what"] == "preferences":
        facts["preferences"] = config["name"]
    if context.kind == "pocket" and config["what"] == "items":
        facts["split"] = config["split"]
    if context.kind == "train":
        facts["earned"] = _earned(config, facts["preferences"])
        if f"{config['algorithm']}-{facts['preferences']}" == os.environ.get("FAILS"):
            raise StageError("the loss is NaN")
        time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")))
    write_json(context.output / "facts.json", facts)
    if context.kind == "evaluate":
        earned = facts.get("earned", 0.0)
        score = earned if facts.get("split") == "validation" else -earned
        write_json(context.output / "metrics.json", {"score": score, "metrics": [], "health": {}, "protocol": {}})
    return {}


def _earned(config: dict[str, Any], preferences: str) -> float:
    algorithm = config["algorithm"]
    return -abs(math.log(config["parameters"][KEYS[algorithm]] / BEST[algorithm, preferences]))


def _inherited(context: StageContext) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for path in context.inputs.values():
        files = [folder / "facts.json" for folder in (path, path.parent)]  # the artifact may be the whole output
        for file in filter(Path.exists, files):
            facts |= json.loads(file.read_text())
    return facts


light_kinds.use("light_tuning:work")

if __name__ == "__main__":
    light_kinds.run()
