"""`ablate eval`: models as they are on suites, without a specification of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.catalogs.judges import Panel
from ablate.cli import main
from ablate.execution.evaluation import Asked, plan_evaluation, write_evaluation
from ablate.execution.keys import require_keys, unset_keys
from ablate.execution.study import make_plan
from ablate.store import Store

SUITES = """\
common: {subject: policy, prompts: pocket, grader: pocket, primary: accuracy, engine: items, category: factuality}
suites:
  few-facts:
    title: Facts
    data: {pocket: {what: items, name: facts, n: 6, split: test, seed: 0}}
    decoding: {max_new_tokens: 8}
  few-sums:
    title: Sums
    data: {pocket: {what: items, name: arithmetic, n: 6, split: test, seed: 0}}
    decoding: {max_new_tokens: 8}
"""
PAIRS = """\
name: few-pairs
title: Pairs
category: reward
subject: reward_model
engine: pairs
data: {pocket: {what: pairs, n: 6, split: test, seed: 0}}
prompts: pocket-pairs
grader: pairwise
primary: accuracy
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with suites of a few examples and no data root, in which the command is run."""
    monkeypatch.delenv("ABLATE_DATA", raising=False)
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "few.yaml").write_text(SUITES)
    (tmp_path / "evals" / "pairs.yaml").write_text(PAIRS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy and a reward model with random weights over the words of the pocket language."""
    from ablate.models.loading import load_reward_model, new_policy, save_model
    from ablate.models.tokenizers import word_tokenizer
    from ablate.pocket.vocabulary import vocabulary

    tokenizer, folder = word_tokenizer(vocabulary(), "pocket"), tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 128}
    found = {name: folder / name for name in ("policy", "reward_model")}
    save_model(new_policy(shape, tokenizer, seed=1), tokenizer, found["policy"])
    save_model(load_reward_model(found["policy"], head_seed=2), tokenizer, found["reward_model"])
    return found


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["ablate", *words])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("models", "suites", "message"),
    [
        (["./nowhere"], "few-facts", "./nowhere is no folder of a model"),
        (["nowhere/"], "few-facts", "nowhere/ is no folder of a model"),
        (["pocket-small"], "few-fact", "did you mean 'few-facts'"),
        (["pocket-smal"], "few-facts", "did you mean 'pocket-small'"),
        (["pocket-small"], "few-facts,few-pairs", "'few-facts' is about policies and 'few-pairs' about reward models"),
        (["pocket-small"], " , ", "no suite is named"),
        (["org/model"], "few-facts", "has no pinned revision"),
        (["pocket-small"], "gsm8k,mmlu", "suite 'gsm8k' needs the file gsm8k/test.jsonl.gz, and no data root is set"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    models: list[str],
    suites: str,
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = call(monkeypatch, "eval", *models, "--suites", suites)
    said = capsys.readouterr().err
    assert code == 2
    assert message in said.replace("\n", " ")


def test_best_of_n_needs_a_policy(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text("{}")
    assert call(monkeypatch, "eval", "model", "--suites", "best-of-16") == 2
    assert "no policy is there to respond" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m", "--suites", "few-facts", "--endpoint", "node7:8000"], "--endpoint: "),
        (["m", "--suites", "few-facts", "--endpoint", "{url: 'http://h/v1', modle: x}"], "did you mean 'model'"),
        (["m", "--suites", "few-facts", "--endpoint", "{url"], "--endpoint '{url' is no YAML"),
        (["m", "m", "--suites", "few-facts", "--endpoint", "http://h/v1"], "a server responds for one policy"),
        (["m", "--suites", "few-pairs", "--endpoint", "http://h/v1"], "a server responds for one policy"),
        (["m", "--suites", "pocket-judged", "--judge", "gpt-4-0614"], "did you mean 'gpt-4-0613'"),
        (["m", "--suites", "few-facts", "--judge", "gpt-4-0613"], "no suite of this experiment has one"),
    ],
)
def test_a_server_that_can_not_respond_is_said(
    words: list[str],
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (project / "m").mkdir()
    (project / "m" / "config.json").write_text("{}")
    assert call(monkeypatch, "eval", *words) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (project / "store" / "experiments").exists()


@pytest.mark.parametrize(
    ("option", "value", "taker"),
    [
        ("--judge", "{model: big-1, url: 'http://127.0.0.1:9/v1', key: A_KEY}", "judge (verdicts of big-1 on "),
        ("--endpoint", "{url: 'http://127.0.0.1:9/v1', key: A_KEY}", "generate (responses of "),
    ],
)
def test_a_key_that_is_not_there_is_said_before_the_first_stage(
    option: str,
    value: str,
    taker: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("A_KEY", "")
    (project / "m").mkdir()
    (project / "m" / "config.json").write_text("{}")
    assert call(monkeypatch, "eval", "m", "--suites", "pocket-judged", option, value) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"the environment variable A_KEY is not set: {taker}" in said and "export A_KEY=…" in said
    assert not (project / "store" / "experiments").exists()
    store = Store(project / "store")
    asked = Asked(
        judge=Panel.model_validate({"judges": [{"model": "big-1", "url": "http://h:8000/v1", "key": "A_KEY"}]})
    )
    stages = plan_evaluation(store, ["m"], ["pocket-judged"], "mine", asked).stages.values()
    assert set(unset_keys(stages)) == {"A_KEY"} and not unset_keys(stages, {"A_KEY"})
    monkeypatch.setenv("A_KEY", "secret")
    require_keys(stages)


def test_what_is_asked_is_written_as_it_was_planned(project: Path) -> None:
    """A later run of the written specification has the same stages: limit, judge, and gaps for what has no data."""
    (project / "m").mkdir()
    (project / "m" / "config.json").write_text("{}")
    store = Store(project / "store")
    panel = Panel.model_validate({"judges": [{"model": "big-1", "url": "http://h:8000/v1", "key": ""}]})
    asked = Asked(limit=3, judge=panel)
    planned = plan_evaluation(store, ["m"], ["few-facts", "pocket-judged", "gsm8k"], "mine", asked)
    assert [stage.identity.config.value["limit"] for stage in planned.stages.values() if stage.kind == "generate"] == [
        3,
        3,
    ]
    write_evaluation(store, planned)
    again = make_plan(str(store.experiment("mine").evaluation), [], store)
    assert set(again.stages) == set(planned.stages) and again.gaps == planned.gaps and list(planned.gaps) == ["gsm8k"]
    (judged,) = [stage for stage in again.stages.values() if stage.kind == "judge"]
    assert [judge["model"] for judge in judged.identity.config.value["judges"]] == ["big-1"]


@pytest.mark.slow
def test_a_server_responds_for_a_policy(
    project: Path,
    models: dict[str, Path],
    judge_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is written names the server, so that a later run asks it, too; done stages are not asked again."""
    judge_server.reply = lambda body: "the capital of nowhere is here ."
    words = ["eval", str(models["policy"]), "--suites", "few-facts", "--name", "mine", "--endpoint", judge_server.url]
    assert call(monkeypatch, *words) == 0
    assert "Factuality" in capsys.readouterr().out and len(judge_server.asked) == 6
    written = Store(project / "store").experiment("mine").evaluation
    values = yaml.safe_load(written.read_text())
    assert values["evaluate"]["endpoints"] == {str(models["policy"]): {"url": judge_server.url}}
    assert call(monkeypatch, "run", str(written)) == 0
    assert call(monkeypatch, "eval", str(models["policy"]), "--suites", "few-facts", "--name", "other") == 0
    assert len(judge_server.asked) == 6, "where a policy is computed makes no other stage"


@pytest.mark.slow
def test_policies_and_reward_models_are_evaluated_and_kept(
    project: Path,
    models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy, reward_model = str(models["policy"]), str(models["reward_model"])
    assert call(monkeypatch, "eval", policy, "--suites", "few-facts,few-sums", "--name", "mine") == 0
    shown = capsys.readouterr().out
    assert "Factuality" in shown and "Scores of mine" in shown and "All 2 evaluations are done" in shown
    assert call(monkeypatch, "eval", policy, "--suites", "few-facts,few-sums", "--name", "mine") == 0
    assert "nothing to do" in capsys.readouterr().out
    written = yaml.safe_load(Store(project / "store").experiment("mine").evaluation.read_text())
    assert written["evaluate"] == {"policy": ["few-facts", "few-sums"], "without_data": "gap"}
    assert call(monkeypatch, "eval", reward_model, "--suites", "few-pairs", "--name", "judges") == 0
    assert "All 1 evaluations are done" in capsys.readouterr().out
