"""A quick look at many suites: few examples of each, and gaps for those whose data are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ablate.errors import DataError, SpecError
from ablate.execution import study
from ablate.plan.plan import Plan

SUITES = ("pocket-gold", "gsm8k", "pocket-chat")


def text(suites: tuple[str, ...] = SUITES, **evaluate: object) -> str:
    block = {"algorithm": "none", "policy": "pocket-small"}
    return yaml.safe_dump({"name": "look", "grid": [block], "evaluate": {"policy": list(suites), **evaluate}})


def test_suites_without_their_data_are_gaps_where_that_is_asked(plan: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"study\.yaml:\d+: evaluate\.policy\.1: suite 'gsm8k' needs the file"):
        plan(text(), root=tmp_path)
    made = plan(text(without_data="gap"), root=tmp_path)
    reason = "suite 'gsm8k' needs the file gsm8k/test.jsonl.gz, which is not there"
    assert made.gaps == {"gsm8k": reason}, "a table names no folder of this machine"
    suites = made.as_json()["suites"]
    assert list(suites) == list(SUITES)
    assert [about.get("gap") for about in suites.values()] == [None, reason, None]
    assert all(set(subject.evaluations) == {"pocket-gold", "pocket-chat"} for subject in made.subjects)
    assert set(made.stages) == set(plan(text(("pocket-gold", "pocket-chat"))).stages)
    assert study.warnings(made) == [f"suite gsm8k is left out: {reason}"]
    nowhere = plan(text(without_data="gap"))
    assert nowhere.gaps == {"gsm8k": "suite 'gsm8k' needs the file gsm8k/test.jsonl.gz, and no data root is set"}
    with pytest.raises(DataError, match="suite 'gsm8k' needs the file"):
        plan(text(("gsm8k", "mmlu"), without_data="gap"), root=tmp_path)
    assert list(plan(text(("pocket-gold",), reward_model=["llmbar"], without_data="gap")).gaps) == ["llmbar"]
    assert list(plan(text(("gsm8k",), reward_model=["pocket-pairs"], without_data="gap")).gaps) == ["gsm8k"]
    with pytest.raises(SpecError, match=r"evaluate\.without_data"):
        plan(text(without_data="gaps"))


def test_a_limit_is_the_most_examples_of_each_suite(plan: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl.gz").write_bytes(b"rows")
    suites = ("pocket-gold", "gsm8k", "gsm8k-unpacking-2024")

    def limits(made: Plan) -> set[tuple[int | None, int | None]]:
        configs = [stage.identity.config.value for stage in made.stages.values() if stage.kind == "generate"]
        return {(config["limit"], config.get("sample_seed")) for config in configs}

    whole, few = (plan(text(suites, **asked), root=tmp_path) for asked in ({}, {"limit": 10}))
    assert limits(whole) == {(None, None), (200, 42)} and limits(few) == {(10, 42)}
    assert limits(plan(text(suites, limit=300), root=tmp_path)) == {(300, 42), (200, 42)}, "200 are fewer than 300"
    notes = {name: about["note"] for name, about in few.as_json()["suites"].items()}
    assert all(note.endswith("At most 10 examples of each task, drawn with seed 42.") for note in notes.values())
    protocols = [{about["protocol"] for about in made.as_json()["suites"].values()} for made in (whole, few)]
    assert not protocols[0] & protocols[1], json.dumps(notes)
    with pytest.raises(SpecError, match=r"evaluate\.limit"):
        plan(text(limit=0))
