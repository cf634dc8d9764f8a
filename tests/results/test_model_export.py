"""An exported model loads as any other, and its card says what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.errors import UnknownNameError, UsageError
from ablate.results.model_export import export_model, find_cell

POLICY = {"dataset": "hh", "algorithm": "dpo", "seed": 0}


@pytest.fixture
def recorded(maker: Any, answers: Any) -> Any:
    """Two DPO policies with labels as the planner writes them, one reward model; the second policy has not run."""
    maker.suite("facts", "factuality")
    maker.suite("pairs", "reward", subject="reward_model")
    maker.subject("dataset=hh algorithm=dpo seed=0", POLICY, {"facts": answers(3, 4)}, stage="train-0")
    maker.subject("dataset=hh algorithm=dpo seed=1", POLICY | {"seed": 1}, {"facts": None}, stage="train-1")
    maker.subject("seed=0 <b>", {"seed": 0}, {"pairs": answers(1, 4)}, subject="reward_model", stage="reward_model-0")
    store = maker.store
    store.stage("train-1").done_json.unlink()
    inputs = {"data": ("tokenise-0", "tokens.parquet")}
    config = {"algorithm": "dpo", "parameters": {"beta": 0.3}, "seed": 0}
    for stage, wired in (("train-0", inputs), ("tokenise-0", {"data": ("dataset-0", "pairs.jsonl")})):
        folder = store.stage(stage)
        folder.folder.mkdir(exist_ok=True)
        named = {role: {"stage": other, "artifact": artifact} for role, (other, artifact) in wired.items()}
        folder.stage_json.write_text(json.dumps({"id": stage, "config": config, "inputs": named}))
    maker.stage("dataset-0")
    set_facts = {"title": "HH_all", "label_kind": "human", "licence": ["MIT"], "licence_note": "", "revision": "abc"}
    maker.plan["data"] = [
        {**set_facts, "name": "hh", "stage": "dataset-0", "roles": ["preferences"]},
        {**set_facts, "name": "hh", "stage": "dataset-0", "roles": ["prompts"], "title": "prompts of HH"},
        {**set_facts, "name": "other", "stage": "dataset-9", "roles": ["SFT"], "title": "not read"},
    ]
    attempt = store.stage("train-0").attempt(1)
    attempt.folder.mkdir(parents=True)
    attempt.environment_json.write_text(json.dumps({"commit": "c0ffee", "packages": {"trl": "1.16"}}))
    for stage in ("train-0", "reward_model-0"):
        model = store.stage(stage).output / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
    maker.write()
    return maker


def test_the_card_says_what_the_record_says(recorded: Any, tmp_path: Path) -> None:
    folder = export_model(recorded.store, "dataset=hh algorithm=dpo seed=0", tmp_path / "model")
    assert {path.name for path in folder.iterdir()} == {"config.json", "README.md"}
    _, front, card = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "license": "mit", "tags": ["ablate", "dpo"],
    }  # fmt: skip
    assert "| HH\\_all | preferences | MIT | abc |" in card and "not read" not in card and "prompts of HH" not in card
    assert "| parameters.beta | 0.3 |" in card and "| dataset | hh |" in card
    assert "| facts | accuracy | 0.75 | 4 |" in card
    assert "| commit | c0ffee |" in card and "| trl | 1.16 |" in card and "DPO, of the experiment `study`" in card


def test_a_set_is_said_to_be_used_for_what_this_model_used_it_for(recorded: Any, tmp_path: Path) -> None:
    about = recorded.plan["data"][0]
    about |= {
        "roles": ["preferences", "reward model"],
        "used_by": {"preferences": ["train-0", "train-1"], "reward model": ["reward_model-0"]},
    }
    recorded.write()
    card = (export_model(recorded.store, "train-0", tmp_path / "model") / "README.md").read_text()
    assert "| HH\\_all | preferences | MIT | abc |" in card
    del about["used_by"]
    recorded.write()
    card = (export_model(recorded.store, "train-0", tmp_path / "older") / "README.md").read_text()
    assert "| HH\\_all | preferences, reward model | MIT | abc |" in card


def test_a_reward_model_is_a_classifier_and_its_name_is_escaped(recorded: Any, tmp_path: Path) -> None:
    card = (export_model(recorded.store, "reward_model: seed=0", tmp_path / "m") / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "license: other" in card
    assert "&lt;b&gt;" in card and "<b>" not in card


@pytest.mark.parametrize(
    ("cell", "stage"),
    [
        ("train-0", "train-0"),
        ("seed=1 algorithm=dpo", "train-1"),
        ("policy: seed=0", "train-0"),
        ("<b>", "reward_model-0"),
        ("dataset=hh,algorithm=dpo,seed=1", "train-1"),
    ],
)
def test_a_cell_is_named_by_what_tells_it_apart(recorded: Any, cell: str, stage: str) -> None:
    assert find_cell(recorded.store, cell)[1].stage == stage


def test_what_is_not_one_cell_is_said(recorded: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'algorithm=dpo' fits 2 models\n.*\n  policy: dataset=hh algorithm=dpo seed=0"
    ):
        find_cell(recorded.store, "algorithm=dpo")
    with pytest.raises(UnknownNameError, match="did you mean 'algorithm=dpo'"):
        find_cell(recorded.store, "algorithm=dop seed=0")
    with pytest.raises(UnknownNameError, match="did you mean 'study'"):
        find_cell(recorded.store, "train-0", "studdy")
    with pytest.raises(UsageError, match="there is no model yet"):
        export_model(recorded.store, "train-1", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    command = ["export", "train-0", str(tmp_path / "full"), "--store", str(recorded.store.root)]
    assert isinstance(CliRunner().invoke(app, command).exception, UsageError)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    assert {path.name for path in tmp_path.iterdir()} == {"full", "store"}  # nothing half-written is left


def test_exported_models_load_with_transformers(recorded: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "pad_token_id": 0}  # fmt: skip
    policy = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    scorer = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**sizes, num_labels=1))
    for stage, model in (("train-0", policy), ("reward_model-0", scorer)):
        model.save_pretrained(recorded.store.stage(stage).output / "model")
    ids = torch.tensor([[3, 4, 5]])
    for stage, model, auto in (
        ("train-0", policy, transformers.AutoModelForCausalLM),
        ("reward_model-0", scorer, transformers.AutoModelForSequenceClassification),
    ):
        loaded = auto.from_pretrained(export_model(recorded.store, stage, tmp_path / stage))
        assert torch.equal(loaded(ids).logits, model(ids).logits)
