"""A checkpoint of elsewhere as a stage: what fits is published as it is, what does not fit leaves nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ablate.cli import main
from ablate.context import Resources
from ablate.errors import AblateError
from ablate.execution import lease
from ablate.execution.adopt import adopt
from ablate.execution.runner import run_stage
from ablate.models.loading import load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import word_tokenizer
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import StageFolder, Store

SHAPE = {"hidden_size": 8, "layers": 1, "heads": 2, "ffn_size": 16, "max_positions": 32}

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a random policy and return its folder."""

    def make(name: str, words: str = "a b c", seed: int = 0, **shape: Any) -> Path:
        tokenizer = word_tokenizer(words.split(), "tulu")
        save_model(new_policy({**SHAPE, **shape}, tokenizer, seed), tokenizer, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def sft(store: Store, add_stage: Callable[[Stage], StageFolder], save: Save) -> StageFolder:
    """A stage of SFT, from a model of a folder that is not placed in the store yet, and what trains from it."""
    graph = Graph()
    base = graph.add("model", {"source": {"digest": "0"}}, label="base", locations={"model": str(save("base"))})
    inputs = {"model": base.ref("model"), "data": base.ref("tokens.parquet")}
    made = graph.add("sft", {"parameters": {}, "seed": 0}, inputs, label="SFT of base")
    graph.add("generate", {}, {"policy": made.ref("model")}, label="responses")
    for stage in graph.stages.values():
        add_stage(stage)
    return store.stage(made.id)


def test_a_checkpoint_becomes_a_stage_that_is_done(store: Store, sft: StageFolder, save: Save) -> None:
    checkpoint = save("mine", seed=5)
    adopt(store, sft, checkpoint)
    assert sft.is_done() and run_stage(sft.folder, Resources()).status == "done", "nothing is left to run"
    published = {path.name: path.read_bytes() for path in sft.artifact("model").iterdir()}
    assert published["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert load_tokenizer(sft.artifact("model")).chat_template == load_tokenizer(checkpoint).chat_template
    done = sft.read_done()
    assert done is not None and done["adopted"]["path"] == str(checkpoint) and len(done["adopted"]["sha256"]) == 64
    assert "code" not in done, "no code of ours made it"
    with pytest.raises(AblateError, match="is done"):
        adopt(store, sft, checkpoint)


def test_a_base_that_is_made_here_is_compared_with_its_recipe(
    store: Store, add_stage: Callable[[Stage], StageFolder], tmp_path: Path
) -> None:
    graph = Graph()
    recipe = {"type": "words", "vocab_size": None, "template": "pocket"}
    tokenizer = graph.add("tokenizer", recipe, label="tokenizer")
    inputs = {"tokenizer": tokenizer.ref("tokenizer")}
    base = graph.add("pretrain", {"architecture": SHAPE | {"layers": 2}}, inputs, label="base")
    made, stage = add_stage(tokenizer), add_stage(base)
    assert run_stage(made.folder, Resources()).status == "done"
    known = load_tokenizer(made.artifact("tokenizer"))
    for name, layers in (("shallow", 1), ("right", 2)):
        save_model(new_policy({**SHAPE, "layers": layers}, known, 0), known, tmp_path / name)
    with pytest.raises(AblateError, match=r"num_hidden_layers 1 \(not 2\)"):
        adopt(store, stage, tmp_path / "shallow")
    adopt(store, stage, tmp_path / "right")
    assert stage.is_done()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def one_weight_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"][:2].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def more_heads(folder: Path) -> None:
    """Other logits from weights of the same shapes."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 2})
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_config, "has no config.json"),
        (no_json, "can't load"),
        (one_weight_less, "lacks 1 of its model's weights: model.layers.0.mlp.up_proj.weight"),
        (other_shape, "can't load"),
        (other_template, "differ: chat template"),
        (more_heads, r"num_attention_heads 4 \(not 2\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    store: Store, sft: StageFolder, save: Save, spoil: Callable[[Path], None], words: str
) -> None:
    checkpoint = save("mine")
    spoil(checkpoint)
    with pytest.raises(AblateError, match=words):
        adopt(store, sft, checkpoint)
    assert not sft.is_done() and not sft.attempts() and not sft.output.exists()


def test_another_architecture_or_vocabulary_is_named(store: Store, sft: StageFolder, save: Save) -> None:
    with pytest.raises(
        AblateError, match=r"of another architecture than the stage's model: num_hidden_layers 2 \(not 1\)"
    ):
        adopt(store, sft, save("deeper", layers=2))
    with pytest.raises(AblateError, match="differ: vocabulary"):
        adopt(store, sft, save("spoken", words="a b d"))
    with pytest.raises(AblateError, match=r"vocab_size \d+ \(not"):
        adopt(store, sft, save("wordy", words="a b c d"))


def test_what_others_need_beside_the_model_can_not_be_adopted(
    store: Store, sft: StageFolder, save: Save, add_stage: Callable[[Stage], StageFolder]
) -> None:
    graph = Graph()
    base = graph.add("model", {}, label="base")
    online = graph.add("train", {"algorithm": "dpo", "parameters": {}}, {"policy": base.ref("model")}, label="online")
    add_stage(base)
    add_stage(online)
    add_stage(replay := graph.add("dataset", {}, {"rows": online.ref("pairs.jsonl")}, label="its pairs"))
    with pytest.raises(AblateError, match=f"{replay.id} reads pairs.jsonl"):
        adopt(store, store.stage(online.id), save("mine"))
    with pytest.raises(AblateError, match="makes no model by training"):
        adopt(store, store.stage(replay.id), save("other"))


def test_a_stage_at_work_elsewhere_is_left_alone(store: Store, sft: StageFolder, save: Save) -> None:
    attempt = lease.claim(sft)
    assert attempt is not None
    with pytest.raises(AblateError, match="another process is at work"):
        adopt(store, sft, save("mine"))
    assert sft.attempts() == [attempt]


SPEC = """\
name: mine
policy: %s
sft: {dataset: pocket-instructions}
grid: [{dataset: pocket-hh, algorithm: dpo}]
evaluate: {policy: [pocket-gold]}
"""


def ablate(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ablate", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code or 0
    assert isinstance(code, int)
    return code


def test_a_stage_of_a_specification_that_was_never_run(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(SPEC % save("base"))
    checkpoint = save("tuned", seed=3)
    monkeypatch.chdir(tmp_path)
    assert ablate(monkeypatch, "adopt", "sft-", str(checkpoint), "--of", "mine.yaml") == 0, capsys.readouterr().err
    assert "is done: SFT of" in capsys.readouterr().out
    assert ablate(monkeypatch, "status", "mine", "--all") == 0
    assert f"adopted from {checkpoint}" in capsys.readouterr().out
    assert ablate(monkeypatch, "plan", "mine.yaml") == 0, "what took no time counts in no estimate"
    assert ablate(monkeypatch, "adopt", "sft-", str(tmp_path / "nowhere"), "dpo.beta=1") == 2
    assert "name it with --of" in capsys.readouterr().err
    assert ablate(monkeypatch, "report", "mine") == 0
    assert f"adopted: SFT of {tmp_path / 'base'} on pocket-instructions, from {checkpoint}" in "".join(
        capsys.readouterr().out.splitlines()
    )
