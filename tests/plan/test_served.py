"""Policies that a server responds for: the same stages as without it, and what can't be asked of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError, UsageError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

URL = "http://node7:8000/v1"
KINDS = ("generate", "evaluate")


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two folders of models that a plan can name."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
        (tmp_path / name / "chat_template.jinja").write_text("{{ messages }}")
    return ["./one", "./two"]


def text(models: list[str], endpoints: dict[str, Any], suites: tuple[str, ...] = ("pocket-gold",)) -> str:
    evaluate = {"policy": list(suites), **({"endpoints": endpoints} if endpoints else {})}
    return yaml.safe_dump({"name": "served", "grid": [{"algorithm": "none", "policy": models}], "evaluate": evaluate})


def of_kind(plan: Plan, kind: str) -> dict[str, Stage]:
    return {stage.id: stage for stage in plan.stages.values() if stage.identity.kind == kind}


def test_where_a_policy_is_served_is_no_identity(plan: Callable[..., Plan], models: list[str]) -> None:
    here = plan(text(models, {}))
    there = plan(text(models, {"./one": URL}))
    named = plan(text(models, {"./one": {"url": URL, "model": "one", "key": "A_KEY", "parallel": 4}}))
    assert set(here.stages) == set(there.stages) == set(named.stages)
    for made, by in ((there, {"url": URL}), (named, {"url": URL, "model": "one", "key": "A_KEY", "parallel": 4})):
        served = [stage for stage in of_kind(made, "generate").values() if "endpoint" in stage.execution.locations]
        own = [stage for stage in of_kind(made, "generate").values() if "endpoint" not in stage.execution.locations]
        assert len(served) == len(own) == 1
        assert json.loads(served[0].execution.locations["endpoint"]) == by
        assert [(stage.execution.network, stage.execution.gpu) for stage in (*served, *own)] == [
            (True, False),
            (False, True),
        ]


def test_repeats_are_of_responses_alone(plan: Callable[..., Plan], models: list[str]) -> None:
    suites = ("pocket-gold", "pocket-pairs-likelihood")
    once, thrice = (plan(text(models, {}, suites), *changes) for changes in ((), ("evaluate.repeats=3",)))
    likelihoods = [set(of_kind(made, "likelihoods")) for made in (once, thrice)]
    responses = [of_kind(made, "generate") for made in (once, thrice)]
    assert likelihoods[0] == likelihoods[1] and not responses[0].keys() & responses[1].keys()
    decodings = [
        {stage.identity.config.value["decoding"].get("repeats") for stage in stages.values()} for stages in responses
    ]
    assert decodings == [{None}, {3}], "one pass is as it always was"
    with pytest.raises(SpecError, match=r"evaluate\.repeats repeats responses, and no suite of policies"):
        plan(text(models, {}, suites[1:]), "evaluate.repeats=3")


@pytest.mark.parametrize(
    ("endpoints", "suites", "message"),
    [
        ({"./one": "node7:8000"}, ("pocket-gold",), r"evaluate\.endpoints\.\./one"),
        ({"./one": {"url": URL, "modle": "x"}}, ("pocket-gold",), r"unknown key 'modle'[\s\S]*did you mean 'model'"),
        ({"pocket-small": URL}, ("pocket-gold",), "pocket-small is trained here, so that no server has it"),
        ({"pocket-smal": URL}, ("pocket-gold",), "did you mean 'pocket-small'"),
        ({"./three": URL}, ("pocket-gold",), "three is no model folder"),
        (
            {"./one": URL},
            ("pocket-gold", "pocket-pairs-likelihood"),
            "'pocket-pairs-likelihood' compares log-likelihoods",
        ),
    ],
)
def test_what_a_server_can_not_respond_for_is_told(
    plan: Callable[..., Plan], models: list[str], endpoints: dict[str, Any], suites: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=r"study\.yaml:\d+[\s\S]*" + message):
        plan(text(models, endpoints, suites))


def test_a_server_of_a_policy_that_nothing_asks_is_refused(plan: Callable[..., Plan], models: list[str]) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:\d+: evaluate\.endpoints.*no policy \./two is evaluated"):
        plan(text(models[:1], {"./two": URL}))
