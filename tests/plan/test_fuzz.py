"""A thousand damaged specifications: each is a valid plan or an error that the command line prints, never a crash."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.catalogs.suites import load_suites
from ablate.errors import AblateError
from ablate.plan import facts
from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

SPEC: dict[str, Any] = {
    "name": "study",
    "question": "Does it hold?",
    "policy": "pocket-small",
    "data": {"max_examples": 100, "seed": 3},
    "datasets": {"mine": {"use": "pocket-hh", "pairing": "best-vs-worst", "converter_options": {"parsing": "bare"}}},
    "sft": {"dataset": "pocket-instructions", "epochs": 2},
    "pretrain": {"steps": 5},
    "reward_model": {"init": "pocket-medium", "learning_rate": 0.001},
    "dpo": {"beta": 0.1, "epochs": "${sft.epochs}"},
    "ppo": {"steps": 3, "missing_eos_reward": None},
    "grid": [
        {"dataset": ["mine", "pocket-shp"], "algorithm": ["dpo", "ppo"], "seed": [0, 1]},
        {
            "algorithm": "ppo",
            "zip": {"dataset": ["pocket-hh", "mine"], "ppo.gamma": [0.9, 1.0]},
            "prompts": "pocket-shp",
        },
    ],
    "when": [{"if": {"algorithm": "dpo", "seed": [1]}, "set": {"dpo.label_smoothing": 0.1}}],
    "exclude": [{"dataset": "mine", "seed": 1}],
    "baselines": ["base", "sft"],
    "evaluate": {"policy": ["pocket-gold", "pocket-if"], "reward_model": ["pocket-pairs", "best-of-16"]},
    "report": "reports/pocket_quick.yaml",
}

KEYS = [
    *("name", "policy", "data", "seed", "max_examples", "datasets", "use", "pairing", "converter_options", "sft"),
    *("dataset", "epochs", "dpo", "beta", "dpo.beta", "ppo", "ppo.gamma", "reward_model", "init", "grid", "zip"),
    *("when", "if", "set", "exclude", "baselines", "evaluate", "report", "extends", "pretrain", "steps", "root"),
    *("algorithm", "a.b", ""),
]
NAMES = [
    *("~", "~nobody/x", ".", "./", "/", "..", "???", "5e-7", "1", "a/b", "a/b@c", "[/bold]"),
    *("${", "${name}", "${nowhere}", "${oc.env:NOWHERE}", "pocket-hh", "pocket-corpus", "pocket-instructions"),
    *("pocket-small", "tulu-2-13b", "dpo", "ppo", "best-of-16", "pocket-gold", "hh-rlhf-harmless"),
]
SCALARS = [None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", " ", "\0", "a\nb", "é", "x" * 300]
CONTAINERS: list[Any] = [[], {}, [[]], [{}], {"a": 1}, {1: 2}, {None: 1}, b"bytes"]
BREAKS = ["", ":", "- ", "{", "]", "'", '"', "\t", "\n", "&a ", "*a", "!!set ", "#", "%", "? ", "\x00"]
# A copy each time: what is drawn may be damaged further.
ODD = st.one_of(st.sampled_from([*NAMES, *SCALARS, *CONTAINERS]), st.text(max_size=8), st.integers(), st.floats()).map(
    copy.deepcopy
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


def misspell(word: str, draw: st.DrawFn) -> str:
    position = draw(st.integers(0, max(len(word) - 1, 0)))
    shorter, longer = word[:position] + word[position + 1 :], word[:position] + "x" + word[position:]
    return draw(st.sampled_from([shorter, longer, word + "s"]))


def damage(draw: st.DrawFn, spec: dict[str, Any]) -> None:
    """Change one thing of a specification, in place."""
    found = places(spec)
    if not found:
        return
    *path, key = draw(st.sampled_from(found))
    parent: Any = spec
    for part in path:
        parent = parent[part]
    value = parent[key]
    action = draw(st.sampled_from(["delete", "replace", "wrap", "unwrap", "rename", "misspell", "move", "add"]))
    if action == "delete":
        del parent[key]
    elif action == "replace":
        parent[key] = draw(ODD)
    elif action == "wrap":
        parent[key] = draw(st.sampled_from([[value], {"a": value}, {draw(st.sampled_from(KEYS)): value}, str(value)]))
    elif action == "unwrap" and isinstance(value, list | dict) and value:
        parent[key] = next(iter(value.values() if isinstance(value, dict) else value))
    elif action == "misspell" and isinstance(value, str):
        parent[key] = misspell(value, draw)
    elif action == "move":
        spec[draw(st.sampled_from(KEYS))] = parent.pop(key)
    elif isinstance(parent, dict):
        if action in ("rename", "misspell"):
            parent[draw(st.sampled_from([draw(st.sampled_from(KEYS)), misspell(str(key), draw)]))] = parent.pop(key)
        else:
            parent[draw(st.sampled_from(KEYS))] = draw(ODD)
    else:
        parent.append(draw(ODD))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text of a specification with one to three faults; one in five has its text broken too."""
    spec = copy.deepcopy(SPEC)
    for _ in range(draw(st.integers(1, 3))):
        damage(draw, spec)
    flow = draw(st.sampled_from([None, False]))
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, default_flow_style=flow)
    if draw(st.integers(0, 4)) == 0:
        position = draw(st.integers(0, len(text)))
        text = text[:position] + draw(st.sampled_from(BREAKS)) + text[position + draw(st.integers(0, 5)) :]
    return text


def test_a_thousand_damaged_specifications_are_plans_or_errors(
    plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites = load_suites([shipped_folder("evals")])
    monkeypatch.setattr(facts, "load_suites", lambda folders: suites)  # read once, not a thousand times
    outcomes = Counter[str]()

    @settings(max_examples=1000, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(text=damaged())
    def check(text: str) -> None:
        file = tmp_path / "study.yaml"
        file.write_text(text, encoding="utf-8", newline="")
        try:
            made = plan(file)
        except AblateError as error:
            outcomes["error"] += 1
            assert error.exit_code == 2
            assert str(error).strip()
        else:
            outcomes["plan"] += 1
            assert made.as_json()["stages"]

    check()
    assert outcomes.total() >= 1000
    assert min(outcomes["error"], outcomes["plan"]) > 30, outcomes
