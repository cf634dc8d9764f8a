import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import processors

from ablate.context import EventLog, StageContext
from ablate.errors import DataError
from ablate.models import stage
from ablate.models.loading import (
    load_policy,
    load_reward_model,
    load_tokenizer,
    new_policy,
    require_same_tokenizer,
    save_model,
    tokenizer_fingerprint,
)
from ablate.models.tokenizers import byte_tokenizer, word_tokenizer

ARCHITECTURE = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "ffn_size": 48,
    "max_positions": 64,
    "tie_embeddings": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = word_tokenizer(["a", "b", "c"], "pocket")
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(new_policy(ARCHITECTURE, tokenizer, seed=3), tokenizer, path)
    return path


def test_saved_folder_is_ordinary_and_reproducible(folder: Path, tmp_path: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any(Path(name).suffix in {".bin", ".pt"} for name in names)
    model, tokenizer = load_policy(folder), load_tokenizer(folder)
    assert model.config.pad_token_id == tokenizer.pad_token_id != model.config.eos_token_id == tokenizer.eos_token_id
    save_model(model, tokenizer, tmp_path / "again")
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_new_policy_depends_on_its_seed_alone() -> None:
    tokenizer = word_tokenizer(["a"], "pocket")
    torch.manual_seed(5)
    first, state = new_policy(ARCHITECTURE, tokenizer, seed=1).state_dict(), torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())
    second, other = (new_policy(ARCHITECTURE, tokenizer, seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_dropout_and_dtype(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_policy(folder), load_tokenizer(folder)
    model.config.attention_dropout = 0.5
    save_model(model, tokenizer, tmp_path)
    assert load_policy(tmp_path).config.attention_dropout == 0.0
    assert load_reward_model(tmp_path, head_seed=0).config.attention_dropout == 0.0
    assert json.loads((tmp_path / "config.json").read_text())["attention_dropout"] == 0.5
    assert load_policy(tmp_path, dtype="bfloat16").dtype == torch.bfloat16


def test_new_reward_head_is_seeded_and_trunk_kept(folder: Path, tmp_path: Path) -> None:
    first, same, other = (load_reward_model(folder, head_seed=seed) for seed in (0, 0, 1))
    assert first.score.weight.shape == (1, 32)
    assert torch.equal(first.score.weight, same.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    trunk = load_policy(folder).model.state_dict()
    assert all(torch.equal(trunk[name], tensor) for name, tensor in first.model.state_dict().items())
    save_model(first, load_tokenizer(folder), tmp_path)
    assert torch.equal(load_reward_model(tmp_path).score.weight, first.score.weight)
    assert load_reward_model(tmp_path).config.num_labels == 1
    with pytest.raises(DataError, match="no reward model"):
        load_reward_model(folder)


def test_missing_models_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model folder"):
        load_policy(tmp_path / "absent")
    with pytest.raises(DataError, match="40 hexadecimal digits"):
        load_tokenizer("some/model")
    with pytest.raises(DataError, match="hf download"):
        load_policy("some/model", revision="0" * 40)
    (tmp_path / "config.json").write_text("{ torn")
    with pytest.raises(DataError, match="can't load"):
        load_policy(tmp_path)


def test_template_is_required_on_request(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["a"], "pocket")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no chat template"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, template=False).eos_token == "<|end|>"


def test_double_bos_is_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["a"], "pocket")
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    begin = ("<|begin|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[begin]
    )
    tokenizer.save_pretrained(tmp_path / "one")
    assert load_tokenizer(tmp_path / "one")("a")["input_ids"][0] == tokenizer.bos_token_id  # added once: accepted
    tokenizer.chat_template = "{{ bos_token + ' ' }}" + str(tokenizer.chat_template)
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(DataError, match="adds another"):
        load_tokenizer(tmp_path / "two")


def test_fingerprint_tells_what_changes_ids(tmp_path: Path) -> None:
    def make():  # type: ignore[no-untyped-def]
        return word_tokenizer(["a", "b"], "pocket")

    base = make()
    base.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    loaded(["a", "a b"], padding=True, truncation=True, max_length=1)  # leaves settings in the backend
    require_same_tokenizer(base, loaded)
    template = make()
    template.chat_template += " "
    renamed = word_tokenizer(["b", "a"], "pocket")
    swapped = make()
    swapped.pad_token = "<|end|>"
    for other, what in ((template, "chat template"), (renamed, "vocabulary"), (swapped, "special tokens")):
        assert tokenizer_fingerprint(other) != tokenizer_fingerprint(base)
        with pytest.raises(DataError, match=f"differ: {what}"):
            require_same_tokenizer(base, other)
    assert tokenizer_fingerprint(byte_tokenizer("tulu")) == tokenizer_fingerprint(byte_tokenizer("tulu"))


def test_model_stage_copies_a_folder_and_checks_it(folder: Path, tmp_path: Path) -> None:
    def context(name: str, source: Path, config: dict) -> StageContext:
        (tmp_path / name / "output").mkdir(parents=True)
        output, events = tmp_path / name / "output", EventLog(tmp_path / name / "e.jsonl")
        return StageContext("model", config, {}, output, tmp_path / name, events, locations={"model": str(source)})

    (folder / "training_args.bin").write_bytes(b"pickle")
    made = context("good", folder, {"source": {"digest": "0"}})
    stage.run(made)
    (folder / "training_args.bin").unlink()
    target = made.output / "model"
    assert not (target / "training_args.bin").exists()
    assert not any(path.is_symlink() for path in target.iterdir())
    expected, found = load_file(folder / "model.safetensors"), load_file(target / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not any(path.samefile(target / path.name) for path in folder.iterdir())  # its owner may go on writing
    with pytest.raises(DataError, match="no safetensors weights"):
        stage.run(context("empty", tmp_path, {"source": {"digest": "0"}}))
    with pytest.raises(DataError, match="no full commit"):
        stage.run(context("hub", Path("some/model"), {"source": {"hub": "some/model", "revision": "main"}}))


def test_model_stage_follows_snapshot_links(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"  # as the hub's cache lays it out: links to blobs
    snapshot.mkdir()
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    (tmp_path / "output").mkdir()
    events = EventLog(tmp_path / "e.jsonl")
    stage.run(
        StageContext(
            "model",
            {"source": {"digest": "0"}},
            {},
            tmp_path / "output",
            tmp_path,
            events,
            locations={"model": str(snapshot)},
        )
    )
    files = list((tmp_path / "output" / "model").iterdir())
    assert files and all(path.is_file() and not path.is_symlink() for path in files)
    assert json.loads((tmp_path / "output" / "model" / "config.json").read_text())["model_type"] == "llama"
