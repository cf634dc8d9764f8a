"""What names a stage: the canonical text of its config, and the identity made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from ablate.catalogs.parameters import Parameters
from ablate.plan.fingerprint import Config, canonical
from ablate.plan.graph import Graph
from ablate.plan.stage import Identity, Ref

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
CONFIGS = st.dictionaries(st.text(), VALUES, max_size=5)

EXAMPLE = {
    "algorithm": "dpo",
    "parameters": {"beta": 0.1, "learning_rate": 5e-7, "epochs": 3, "steps": None, "whiten": True},
    "seed": 0,
    "files": {"b/ä.jsonl": "00", "a.jsonl": "ff"},
    "stop": ["\n", "</s>"],
}


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(CONFIGS)
@settings(deadline=None, derandomize=True)
def test_the_order_of_keys_changes_nothing(config: dict[str, Any]) -> None:
    assert canonical(config) == canonical(reversed_keys(config))


@given(CONFIGS)
@settings(deadline=None, derandomize=True)
def test_the_text_reads_back_as_the_config(config: dict[str, Any]) -> None:
    assert Config.of(config).value == config


@given(VALUES, VALUES)
@settings(deadline=None, derandomize=True)
def test_equal_texts_are_equal_values_of_equal_types(left: Any, right: Any) -> None:
    assert (canonical(left) == canonical(right)) == (typed(left) == typed(right))


def typed(value: Any) -> Any:
    """A value with the types that Python's equality overlooks: 1, 1.0 and True, 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


def test_mappings_and_tuples_are_spelt_like_dicts_and_lists() -> None:
    assert canonical(OrderedDict(b=(1, 2), a=MappingProxyType({"c": None}))) == '{"a":{"c":null},"b":[1,2]}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"config\.a\.b\[1\] is nan"),
        ({"a": float("inf")}, r"config\.a is inf"),
        ({"a": float("-inf")}, r"config\.a is -inf"),
        ({"a": {1, 2}}, r"config\.a is of type set"),
        ({"a": [frozenset()]}, r"config\.a\[0\] is of type frozenset"),
        ({"a": len}, r"config\.a is of type builtin_function_or_method"),
        ({"a": object()}, r"config\.a is of type object"),
        ({"a": b"x"}, r"config\.a is of type bytes"),
        ({"a": {"b": {1: "x"}}}, r"config\.a\.b has the key 1"),
        ({"a": {None: "x"}}, r"config\.a has the key None"),
        ({"a": type("Text", (str,), {})("x")}, r"config\.a is of type Text"),
        ({"a": type("Number", (int,), {})(3)}, r"config\.a is of type Number"),
        ({"a": type("Real", (float,), {})(3)}, r"config\.a is of type Real"),
        ({"a": Ref("x", "y")}, r"config\.a is of type Ref"),
        ({"a": range(3)}, r"config\.a is of type range"),
    ],
)
def test_what_has_no_spelling_is_refused_by_its_path(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Config.of(value)


def identity(**changes: Any) -> Identity:
    facts: dict[str, Any] = {
        "kind": "train",
        "revision": 1,
        "config": Config.of(EXAMPLE),
        "inputs": (("policy", Ref("sft-0123", "model")), ("data", Ref("tokenise-4567", "tokens.parquet"))),
    }
    return Identity(**{**facts, **changes})


def test_pinned_identities() -> None:
    """These change only when the scheme does, and then the results of every store are orphaned."""
    assert Config.of(EXAMPLE).digest == "347e41102d10532c"
    assert identity().id() == "train-0efc2e43f050fa46"


def test_any_part_of_an_identity_changes_the_id() -> None:
    policy, data = identity().inputs
    variants = [
        identity(),
        identity(kind="sft"),
        identity(revision=2),
        identity(parts=(("dpo", 1),)),
        identity(parts=(("dpo", 2),)),
        identity(parts=(("dpo", 1), ("ppo", 1))),
        identity(config=Config.of({**EXAMPLE, "seed": 1})),
        identity(config=Config.of({**EXAMPLE, "seed": 0.0})),
        identity(inputs=(policy,)),
        identity(inputs=(policy, ("data", Ref("tokenise-4567", "report.json")))),
        identity(inputs=(policy, ("data", Ref("tokenise-4568", "tokens.parquet")))),
        identity(inputs=(policy, ("prompts", data[1]))),
        identity(inputs=(("policy", data[1]), ("data", policy[1]))),
    ]
    assert len({item.id() for item in variants}) == len(variants)


def test_order_of_inputs_and_how_it_is_run_change_nothing() -> None:
    parts = (("a", 1), ("b", 2))
    assert identity(parts=parts).id() == identity(parts=parts[::-1]).id()
    same = identity(inputs=tuple(reversed(identity().inputs)))
    assert identity().id() == same.id()
    graphs = Graph(), Graph()
    one = graphs[0].add("pocket", {"n": 1}, label="one", locations={"root": "/one"}, entry="a:run")
    two = graphs[1].add("pocket", {"n": 1}, label="two", locations={"root": "/two"}, entry="b:run", heavy=True)
    assert one.id == two.id and one.execution != two.execution


def test_a_graph_holds_a_stage_once() -> None:
    graph = Graph()
    first = graph.add("pocket", {"n": 1, "seed": 0}, label="first", locations={"root": "a"})
    assert graph.add("pocket", {"seed": 0, "n": 1}, label="second", locations={"root": "b"}) is first
    assert graph.add("pocket", {"seed": 0, "n": 2}, label="first") is not first
    assert len(graph.stages) == 2


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_the_hash_seed_of_python_changes_nothing(hash_seed: str) -> None:
    code = (
        "import json, sys; from ablate.plan.fingerprint import Config; print(Config.of(json.loads(sys.argv[1])).digest)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, json.dumps(EXAMPLE)],
        env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert process.stdout.strip() == Config.of(EXAMPLE).digest


class Before(Parameters):
    """A method's parameters as first released."""

    beta: float = 0.1


class After(Parameters):
    """The same, with fields added later."""

    beta: float = 0.1
    label_smoothing: float = Field(0.0, json_schema_extra={"since": 0.0})
    loss_type: str = Field("sigmoid", json_schema_extra={"since": "pairwise"})
    cut: int | None = Field(None, json_schema_extra={"since": None})


def test_a_new_field_at_the_value_that_reproduces_the_old_behaviour_is_left_out() -> None:
    assert After(loss_type="pairwise").identity() == Before().identity() == {"beta": 0.1}
    assert After().identity() == {"beta": 0.1, "loss_type": "sigmoid"}
    changed = After(label_smoothing=0.2, cut=3).identity()
    assert changed == {"beta": 0.1, "label_smoothing": 0.2, "loss_type": "sigmoid", "cut": 3}
    assert After(loss_type="pairwise", cut=0).identity() == {"beta": 0.1, "cut": 0}
