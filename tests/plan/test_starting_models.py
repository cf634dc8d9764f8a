"""Baselines of a plan: one for every model that cells start from, told apart by its axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

MakePlan = Callable[..., Plan]

SPEC: dict[str, Any] = {
    "name": "study",
    "policy": "pocket-small",
    "sft": {"dataset": "pocket-instructions"},
    "baselines": ["base", "sft"],
    "evaluate": {"policy": ["pocket-gold"]},
}


def text(**changes: Any) -> str:
    return yaml.safe_dump({**SPEC, **changes}, sort_keys=False)


BASES = (shipped_folder("experiments") / "pocket_bases.yaml", {"pretrain.seed": [0, 1, 2, 3, 4]})
SIZES = (text(grid=[{"policy": ["pocket-small", "pocket-medium"], "dataset": "pocket-hh", "algorithm": "dpo"}]),
         {"policy": ["pocket-small", "pocket-medium"]})  # fmt: skip
RATES = (text(grid=[{"sft.learning_rate": [0.1, 0.2], "dataset": "pocket-hh", "algorithm": "dpo"}]),
         {"sft.learning_rate": [0.1, 0.2]})  # fmt: skip


@pytest.mark.parametrize(("spec", "axis"), [BASES, SIZES, RATES], ids=["pretrain.seed", "policy", "sft"])
def test_every_starting_model_is_a_baseline_of_its_own(plan: MakePlan, spec: Any, axis: dict[str, list[Any]]) -> None:
    made = plan(spec)
    ((name, values),) = axis.items()
    entries = made.as_json()["subjects"]
    for role in ("base", "sft"):
        found = [entry for entry in entries if entry.get("baseline") == role]
        is_shaped = (role, name) != ("base", "sft.learning_rate")
        assert [entry["label"] for entry in found] == ([f"{role} {name}={v}" for v in values] if is_shaped else [role])
        assert {entry["role"] for entry in found} == {"baseline"}
        assert len({entry["stage"] for entry in found}) == len(found)
    for cell in (entry for entry in entries if entry["role"] == "cell" and entry["subject"] == "policy"):
        own = [
            entry["stage"]
            for entry in entries
            if entry.get("baseline") == "sft" and entry["axes"][name] == cell["axes"][name]
        ]
        assert own == [cell["inputs"]["sft"]]
    links = [(item.subject, item.label(made.grid.axes)) for item in made.subjects]
    assert len(set(links)) == len(links)
