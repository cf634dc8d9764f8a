"""The JSON schema accepts every shipped experiment and refuses misspelt keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.experiment.schema import experiment_schema
from ablate.shipped import shipped_folder

SHIPPED = sorted(shipped_folder("experiments").rglob("*.yaml"))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> list[str]:
    """What JSON schema's own words (those that appear in ours) say against a value; a small validator."""
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    if "anyOf" in schema:
        tries = [problems(value, option, root, path) for option in schema["anyOf"]]
        return [] if [] in tries else min(tries, key=len)
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool))):
        return [f"{path}: no {kind}"]
    found = [] if value in schema.get("enum", [value]) else [f"{path}: not of the enumeration"]
    found += [f"{path}: too small" for word in ("minimum",) if word in schema and value < schema[word]]
    found += [f"{path}: too small" for word in ("exclusiveMinimum",) if word in schema and value <= schema[word]]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{path}: {name} is required" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name in known:
                found += problems(item, known[name], root, f"{path}.{name}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{path}: unknown key {name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                found += problems(item, schema["additionalProperties"], root, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems(item, schema.get("items", {}), root, f"{path}[{index}]")
    return found


def check(value: Any) -> list[str]:
    schema = json.loads(json.dumps(experiment_schema()))
    if isinstance(value, dict) and "extends" in value:
        schema["required"] = []
    return problems(value, schema, schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid(path: Path) -> None:
    assert check(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"polcy": "x"}, "unknown key polcy"),
        ({"dpo": {"bta": 1}}, "unknown key bta"),
        ({"dpo": {"beta": -1}}, "too small"),
        ({"ppo": {"steps": "many"}}, "no "),
        ({"grid": [{"algoritm": "dpo"}]}, "unknown key algoritm"),
        ({"grid": [{"zip": {"sede": [1]}}]}, "unknown key sede"),
        ({"baselines": ["bass"]}, "not of the enumeration"),
        ({"name": None}, "no string"),
    ],
)
def test_a_wrong_key_or_value_is_not(change: dict[str, Any], problem: str) -> None:
    whole = {"name": "x", "policy": "pocket-small", "grid": [{"dataset": "a", "algorithm": "dpo", "dpo.beta": [0.1]}]}
    assert check(whole) == []
    assert any(problem in line for line in check({**whole, **change}))


def test_a_reward_model_and_no_sft_may_be_written_short() -> None:
    whole: dict[str, Any] = {
        "name": "x",
        "reward_model": "pocket-medium",
        "sft": None,
        "extends": ["a.yaml"],
        "grid": [{}],
    }
    assert check(whole) == []
