"""A thousand damaged specifications: each is a plan or an error that says what is wrong and where, never a crash."""

from __future__ import annotations

import copy
import json
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
from ablate.execution.record import check_report, find_report
from ablate.plan import facts
from ablate.plan.plan import Plan
from ablate.results.layout import load_layout
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
    "ppo": {"steps": 3, "missing_eos_reward": None, "max_prompt_length": 128, "max_response_length": 64},
    "grid": [
        {"dataset": ["mine", "pocket-shp"], "algorithm": ["dpo", "ppo"], "seed": [0, 1]},
        {
            "algorithm": "ppo",
            "zip": {"dataset": ["pocket-hh", "mine"], "ppo.gamma": [0.9, 1.0]},
            "prompts": "pocket-shp",
        },
        {
            "dataset": "pocket-hh",
            "algorithm": "dpo",
            "policy": [
                {"from": {"algorithm": "ppo", "ppo": {"gamma": 0.9}, "policy": {"from": {"dataset": "mine"}}}},
                {"merge": [{"from": {"seed": 1}, "title": "one"}, "pocket-small"], "weights": [0.25, 0.75]},
            ],
            "rounds": 2,
        },
    ],
    "when": [{"if": {"algorithm": "dpo", "seed": [1]}, "set": {"dpo.label_smoothing": 0.1}}],
    "exclude": [{"dataset": "mine", "seed": 1}],
    "baselines": ["base", "sft"],
    "evaluate": {"policy": ["pocket-gold", "pocket-if"], "reward_model": ["pocket-pairs", "best-of-16"]},
    "report": "table.yaml",
}

REPORT = """\
tables:
  - name: main
    rows: [dataset, algorithm, ppo.gamma, prompts, policy, rounds]
    columns: [categories, {suite: pocket-gold, metric: polite}]
    baselines: [base, sft]
    deltas: [{axis: algorithm, values: [ppo, dpo], match_on: [dataset]}]
  - name: reward-models
    subject: reward_model
    rows: [reward_model.dataset]
    columns: [suites]
figures: [{name: bars, table: main, columns: [instruction-following]}]
"""

KEYS = [
    *("name", "policy", "data", "seed", "max_examples", "datasets", "use", "pairing", "converter_options", "sft"),
    *("dataset", "epochs", "dpo", "beta", "dpo.beta", "ppo", "ppo.gamma", "reward_model", "init", "grid", "zip"),
    *("when", "if", "set", "exclude", "baselines", "evaluate", "report", "extends", "pretrain", "steps", "root"),
    *("algorithm", "policy", "from", "merge", "weights", "rounds", "a.b", ""),
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
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        damage(draw, spec)
    flow = draw(st.sampled_from([None, False]))
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, default_flow_style=flow)
    if draw(st.integers(0, 4)) == 0:
        position = draw(st.integers(0, len(text)))
        text = text[:position] + draw(st.sampled_from(BREAKS)) + text[position + draw(st.integers(0, 5)) :]
    return text


@st.composite
def damaged_overrides(draw: st.DrawFn) -> list[str]:
    """One or two overrides of keys that may be there, with values that may be right."""
    overrides = []
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        path = draw(st.sampled_from(places(SPEC)))
        value: Any = SPEC
        for part in path:
            value = value[part]
        dotted = ".".join(map(str, path))
        key = draw(st.sampled_from([dotted, dotted, dotted, draw(st.sampled_from(KEYS)), misspell(dotted, draw)]))
        written = draw(st.sampled_from([json.dumps(value), json.dumps(value), "[0, 1]", "[", str(draw(ODD))]))
        overrides.append(f"{key}={written}")
    return overrides


# A damaged file, or, one in four, the good one with damaged overrides.
FILES = st.tuples(damaged(), st.just([]))
OVERRIDES = st.tuples(st.just(yaml.safe_dump(SPEC, sort_keys=False)), damaged_overrides())
CASES = st.one_of(FILES, FILES, FILES, OVERRIDES)


def assert_it_says_where(error: AblateError, file: Path) -> None:
    place = error.location
    assert place is not None and place.file, error
    assert error.message.strip()
    is_yaml = not error.message.startswith("not valid")
    if place.line is not None:
        lines = Path(place.file).read_text(encoding="utf-8").split("\n")
        assert 1 <= place.line <= len(lines) + (not is_yaml), error  # the end of a file may be a line of its own
        return
    # No key was written that could have a line: not YAML at all, an empty file, a key that an override brought.
    unread = not is_yaml or "is a mapping of keys" in error.message
    assert place.file.startswith("override ") or (place.file == str(file) and unread), error


def test_a_thousand_damaged_specifications_are_plans_or_errors(
    plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites = load_suites([shipped_folder("evals")])
    monkeypatch.setattr(facts, "load_suites", lambda folders: suites)  # read once, not a thousand times
    (tmp_path / "table.yaml").write_text(REPORT)
    outcomes = Counter[str]()

    @settings(max_examples=1000, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(case=CASES)
    def check(case: tuple[str, list[str]]) -> None:
        text, overrides = case
        file = tmp_path / "study.yaml"
        file.write_text(text, encoding="utf-8", newline="")
        try:
            made = plan(file, *overrides)
            if (report := find_report(made.loaded)) is not None:
                check_report(made, report, load_layout)
        except AblateError as error:
            outcomes["error"] += 1
            assert error.exit_code == 2
            assert_it_says_where(error, file)
        else:
            outcomes["plan"] += 1
            assert made.as_json()["stages"]

    check()
    assert outcomes.total() >= 1000
    assert min(outcomes["error"], outcomes["plan"]) > 30, outcomes
