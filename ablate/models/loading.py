"""The one place where models and tokenizers are loaded, made, compared and saved."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from ablate.errors import DataError, StageError
from ablate.models.properties import pad_id
from ablate.models.quantisation import loading_options, with_gradients
from ablate.models.reward_heads import head_of, is_pairwise

# What a stage prints goes to a log file, where progress bars are noise.
disable_progress_bar()  # type: ignore[no-untyped-call]

Loaded = TypeVar("Loaded")

FULL_REVISION = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
PROBE = [{"role": "user", "content": "a"}]


def load_tokenizer(
    source: Path | str, *, revision: str | None = None, template: bool = True, doubled_bos: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, or of a hub repository at a full ``revision``.

    With ``template`` (the default) it must have a chat template; a template that emits a beginning-of-sequence token
    which the tokenizer adds again is refused, but with ``doubled_bos``, for those who render and encode as
    :mod:`ablate.models.chat` does: there it is one. Raises DataError.
    """
    found = _source(source, revision)
    tokenizer: PreTrainedTokenizerBase = _load(source, lambda: AutoTokenizer.from_pretrained(found, revision=revision))
    for name in ("is_local", "local_files_only"):  # how it was loaded, which would be saved with it
        tokenizer.init_kwargs.pop(name, None)
    if template and not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {source} has no chat template",
            hint="add chat_template.jinja to the folder, or use a model tuned on conversations",
        )
    if tokenizer.eos_token_id is None:
        raise DataError(f"the tokenizer of {source} has no end-of-sequence token", hint="set eos_token in its config")
    if tokenizer.chat_template and not doubled_bos and doubles_bos(tokenizer):
        raise DataError(
            f"the chat template of {source} emits {tokenizer.bos_token!r} and the tokenizer adds another",
            hint="remove it from the template, or set add_bos_token to false in tokenizer_config.json",
        )
    return tokenizer


def load_policy(
    source: Path | str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    quantisation: str | None = None,
) -> PreTrainedModel:
    """Load a causal language model from a folder or, at a full ``revision``, from the hub.

    ``dtype`` is that of the weights in memory, but for linear layers under ``quantisation`` (4bit); every dropout
    probability is zero.
    """
    model: PreTrainedModel = _load(
        source,
        lambda: AutoModelForCausalLM.from_pretrained(
            _source(source, revision),
            revision=revision,
            config=load_config(source, revision),
            dtype=getattr(torch, dtype),
            **loading_options(quantisation),
        ),
    )
    return with_gradients(model) if quantisation else model


def load_reward_model(
    source: Path | str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    head_seed: int | None = None,
    outputs: int = 1,
    pairwise: bool = False,
    quantisation: str | None = None,
) -> PreTrainedModel:
    """Load a sequence classifier with one output.

    Without ``head_seed`` the source must be a reward model, which scores a response or, with ``pairwise``, compares
    two. With it the source is a language model, which gets a new head of ``outputs``: weights normal with variance
    1 / (hidden size + 1), so that first scores have a variance near 1.
    """
    config = load_config(source, revision)
    if head_seed is None:
        require_reward_model(source, config, pairwise=pairwise)
    config.num_labels = outputs
    if config.pad_token_id is None:
        tokenizer = load_tokenizer(source, revision=revision, template=False, doubled_bos=True)
        config.pad_token_id = pad_id(tokenizer)  # masks alone tell what padding is: any id will do
    model: PreTrainedModel = _load(
        source,
        lambda: AutoModelForSequenceClassification.from_pretrained(
            _source(source, revision),
            revision=revision,
            config=config,
            dtype=getattr(torch, dtype),
            **loading_options(quantisation),
        ),
    )
    if head_seed is not None:
        generator = torch.Generator().manual_seed(head_seed)
        head = head_of(model).weight
        with torch.no_grad():
            head.copy_(torch.randn(head.shape, generator=generator) / (head.shape[-1] + 1) ** 0.5)
    return with_gradients(model) if quantisation else model


def require_reward_model(source: Path | str, config: PretrainedConfig, *, pairwise: bool) -> None:
    """Raise DataError unless a config is that of a reward model, of one that compares responses with ``pairwise``."""
    is_reward_model = any("SequenceClassification" in name for name in config.architectures or [])
    if not (is_reward_model and config.num_labels == 1):
        raise DataError(
            f"{source} is no reward model: architectures {config.architectures}, num_labels {config.num_labels}",
            hint="a reward model is a sequence classifier with num_labels 1",
        )
    if is_pairwise(config) != pairwise:
        raise DataError(
            f"{source} {'scores one response' if pairwise else 'compares two responses and gives none a score'}",
            hint="a reward model with loss: pairwise serves suites of pairs and labels; others score single responses",
        )


def require_all_weights(source: Path, *, scores: bool) -> None:
    """Raise DataError unless a folder has every weight of its model, in the right shape; none is read into memory."""
    kind: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    _, found = _load(source, lambda: kind.from_pretrained(source, device_map="meta", output_loading_info=True))
    if missing := sorted(found["missing_keys"]):
        raise DataError(
            f"{source} lacks {len(missing)} of its model's weights: {missing[0]}{', …' if len(missing) > 1 else ''}",
            hint="copy the whole checkpoint, every file of safetensors weights and their index",
        )


def compares_responses(source: Path | str, *, revision: str | None = None) -> bool:
    """Whether a reward model reads two responses and gives none a score."""
    return is_pairwise(load_config(source, revision))


def new_policy(
    architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int, *, dtype: str = "float32"
) -> PreTrainedModel:
    """Return a Llama model with random weights that depend on ``seed`` alone.

    ``architecture``: the keys of ``ablate.catalogs.models.Architecture``.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=int(architecture["hidden_size"]),
        num_hidden_layers=int(architecture["layers"]),
        num_attention_heads=int(architecture["heads"]),
        num_key_value_heads=int(architecture["heads"]),
        intermediate_size=int(architecture["ffn_size"]),
        max_position_embeddings=int(architecture["max_positions"]),
        tie_word_embeddings=bool(architecture.get("tie_embeddings", True)),
        rope_parameters={"rope_type": "default", "rope_theta": float(architecture.get("rope_theta", 10000.0))},
        initializer_range=float(architecture.get("initializer_range", 0.02)),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = LlamaForCausalLM(config).to(getattr(torch, dtype))
    return model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer as an ordinary folder with safetensors and no pickle; raises StageError on one."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pickles := sorted(path.name for path in folder.rglob("*") if path.suffix in PICKLES):
        raise StageError(f"{folder}: pickled files {pickles} must not be published")


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of everything that turns a conversation into token ids: vocabulary, merges, template, specials.

    Equal before and after saving and loading; padding and truncation settings do not enter.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    facts: dict[str, Any] = {
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "ids": sorted(tokenizer.all_special_ids),
    }
    if backend is None:
        facts["vocab"] = tokenizer.get_vocab()
    else:
        state = json.loads(backend.to_str())
        facts["backend"] = {name: value for name, value in state.items() if name not in ("padding", "truncation")}
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def require_same_tokenizer(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> None:
    """Raise DataError unless both turn every conversation into the same ids; the message says what differs."""
    if tokenizer_fingerprint(first) == tokenizer_fingerprint(second):
        return
    differences = {
        "vocabulary": first.get_vocab() != second.get_vocab(),
        "chat template": first.chat_template != second.chat_template,
        "special tokens": first.special_tokens_map != second.special_tokens_map,
    }
    named = [name for name, differs in differences.items() if differs] or ["merges or pre-tokenisation"]
    raise DataError(
        f"the tokenizers of {first.name_or_path} and {second.name_or_path} differ: {', '.join(named)}",
        hint="use models that were trained with one tokenizer and chat template",
    )


def doubles_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a rendered chat, tokenised like any text, starts with two beginning-of-sequence tokens."""
    bos = tokenizer.bos_token_id
    if bos is None or not tokenizer.chat_template:
        return False
    rendered = tokenizer.apply_chat_template(PROBE, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(rendered)["input_ids"][:2]) == [bos, bos]


def _source(source: Path | str, revision: str | None) -> str:
    """Return what transformers is to load: an existing folder, or a hub id with a full revision."""
    if os.path.isdir(source):
        return str(source)
    text = str(source)
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or not HUB_ID.fullmatch(text):
        raise DataError(f"there is no model folder {text}", hint="it is written by the stage before; look at its log")
    if revision is None or not FULL_REVISION.fullmatch(revision):
        raise DataError(
            f"{text} is neither a folder nor pinned to a full revision (got {revision!r})",
            hint="a model of the hub is named with the 40 hexadecimal digits of its commit",
        )
    return text


def load_config(source: Path | str, revision: str | None = None) -> PretrainedConfig:
    """Return the config of a folder or, at a full ``revision``, of the hub, with every dropout probability zero."""
    found = _source(source, revision)
    config: PretrainedConfig = _load(source, lambda: AutoConfig.from_pretrained(found, revision=revision))
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def _load(source: Path | str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    # What transformers, safetensors and the hub client raise for files that are absent, torn or of another kind.
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"can't load {source}: {error}",
            hint="without a network a model of the hub must be in the cache (hf download ID --revision COMMIT)",
        ) from error
