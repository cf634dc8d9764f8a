"""Models of this machine that score responses: a stage before evaluation, named in a grader's options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.catalogs.suites import load_suites
from ablate.errors import SpecError, UsageError
from ablate.experiment.loading import load_experiment
from ablate.plan.facts import gather_facts
from ablate.plan.plan import Plan, build_plan
from ablate.shipped import shipped_folder

SUITE = """\
name: harmless
title: Harmless
category: safety
subject: policy
engine: items
data: {pocket: {n: 3}}
prompts: pocket
decoding: {max_new_tokens: 8}
grader: toxigen
options: {toxic: MODEL}
primary: nontoxic
"""
SPEC = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: pocket-hh, algorithm: [dpo, ipo]}
evaluate: {policy: [harmless, pocket-safety]}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[str], Plan]:
    """Plan with the model of that name as the classifier of a suite of one's own."""
    (tmp_path / "evals").mkdir()
    (tmp_path / "small.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "config.json").write_text("{}", encoding="utf-8")

    def call(model: str) -> Plan:
        (tmp_path / "evals" / "harmless.yaml").write_text(SUITE.replace("MODEL", model), encoding="utf-8")
        loaded = load_experiment(tmp_path / "small.yaml", ())
        folders = [tmp_path / "evals", shipped_folder("evals")]
        facts = gather_facts(loaded, evals=folders, digest_cache=tmp_path / "digests.json", data_root=None)
        return build_plan(loaded, facts)

    return call


def test_one_model_scores_the_responses_of_every_policy(planned: Callable[[str], Plan]) -> None:
    stages = planned("./classifier").stages.values()
    scores = [stage for stage in stages if stage.identity.kind == "response_scores"]
    models = [stage for stage in stages if stage.identity.kind == "model"]
    assert len(models) == 1
    assert models[0].identity.config.value["chat"] is False  # a classifier needs no chat template
    assert len(scores) == 2
    for stage in scores:
        assert stage.identity.config.value == {"columns": ["toxic"], "grader": "toxigen"}
        assert dict(stage.identity.inputs)["toxic"].stage == models[0].id
    graded = [stage for stage in stages if "response_scores" in dict(stage.identity.inputs)]
    assert {dict(stage.identity.inputs)["response_scores"].stage for stage in graded} == {stage.id for stage in scores}
    assert all("toxic" not in json.dumps(stage.identity.config.value["options"]) for stage in graded)


def test_without_a_model_nothing_is_scored(planned: Callable[[str], Plan]) -> None:
    assert not [stage for stage in planned("null").stages.values() if stage.identity.kind == "response_scores"]


def test_a_model_that_is_not_there_is_refused_before_anything_runs(planned: Callable[[str], Plan]) -> None:
    with pytest.raises(UsageError, match="is no model folder"):
        planned("./nowhere")
    with pytest.raises(SpecError, match="tomh/toxigen_roberta has no pinned revision"):
        planned("tomh/toxigen_roberta")


def test_numbers_under_different_classifiers_share_no_column(tmp_path: Path) -> None:
    digests = set()
    for model in ("./one", "./two", "null"):
        (tmp_path / "suite.yaml").write_text(SUITE.replace("MODEL", model), encoding="utf-8")
        digests.add(load_suites([tmp_path])["harmless"].protocol_digest())
    assert len(digests) == 3
