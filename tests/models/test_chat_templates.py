"""Prompts by token ids in the formats of the families that are evaluated, on byte-level tokenizers of the same habits.

The expected ids are written from each family's documented format, token by token: special tokens by name, and the bytes
of the text between them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ablate.errors import DataError
from ablate.models.chat import encode_chats, encode_rendered, render, split_reasoning

HI = [{"role": "user", "content": "Hi"}]
TALK = [{"role": "system", "content": "Be brief."}, *HI, {"role": "assistant", "content": "Yes?"}, *HI]

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}{% set content = system + message['content'] if loop.first else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TULU = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% else %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
OLMO_2 = "{{ bos_token }}" + TULU


def of_trl(name: str) -> str:
    """A model's own template, as the installed TRL ships it."""
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer(template: str, *special: str, bos: str | None, eos: str, adds_bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens of a family; ``adds_bos``: it begins every text with BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    named = [*special, *([bos] if bos else []), eos]
    backend.add_special_tokens(list(dict.fromkeys(named)))
    if adds_bos:
        assert bos is not None
        ids = [(bos, backend.token_to_id(bos))]
        backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=ids)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)  # type: ignore[no-untyped-call]
    made.chat_template = template
    return made


def ids(made: Any, *parts: str) -> list[int]:
    """Ids of special tokens by name and of the bytes of any other text."""
    found: list[int] = []
    for part in parts:
        special = made.convert_tokens_to_ids(part)
        own = made.encode(part, add_special_tokens=False)
        found += [special] if part in made.get_added_vocab() else own
    return found


def llama_2() -> PreTrainedTokenizerFast:
    return tokenizer(LLAMA_2, bos="<s>", eos="</s>", adds_bos=True)


def llama_3() -> PreTrainedTokenizerFast:
    marks = ("<|start_header_id|>", "<|end_header_id|>")
    return tokenizer(of_trl("llama3"), *marks, bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=True)


def tulu() -> PreTrainedTokenizerFast:
    return tokenizer(TULU, bos="<s>", eos="</s>", adds_bos=True)


def olmo_2() -> PreTrainedTokenizerFast:
    return tokenizer(OLMO_2, bos="<|endoftext|>", eos="<|endoftext|>", adds_bos=False)


def qwen_3() -> PreTrainedTokenizerFast:
    return tokenizer(of_trl("qwen3"), "<|im_start|>", bos=None, eos="<|im_end|>", adds_bos=False)


def header(role: str) -> list[str]:
    return ["<|start_header_id|>", role, "<|end_header_id|>"]


CASES: dict[str, tuple[Any, list[str], list[str]]] = {
    "llama-2": (
        llama_2,
        ["<s>", "[INST] Hi [/INST]"],
        ["<s>", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? ", "</s>", "<s>", "[INST] Hi [/INST]"],
    ),
    "llama-3": (
        llama_3,
        ["<|begin_of_text|>", *header("user"), "\n\nHi", "<|eot_id|>", *header("assistant"), "\n\n"],
        [
            *("<|begin_of_text|>", *header("system"), "\n\nBe brief.", "<|eot_id|>"),
            *(*header("user"), "\n\nHi", "<|eot_id|>", *header("assistant"), "\n\nYes?", "<|eot_id|>"),
            *(*header("user"), "\n\nHi", "<|eot_id|>", *header("assistant"), "\n\n"),
        ],
    ),
    "tulu": (
        tulu,
        ["<s>", "<|user|>\nHi\n<|assistant|>\n"],
        [
            *("<s>", "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nYes?", "</s>"),
            "\n<|user|>\nHi\n<|assistant|>\n",
        ],
    ),
    "olmo-2": (
        olmo_2,
        ["<|endoftext|>", "<|user|>\nHi\n<|assistant|>\n"],
        [
            *("<|endoftext|>", "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nYes?", "<|endoftext|>"),
            "\n<|user|>\nHi\n<|assistant|>\n",
        ],
    ),
    "qwen-3": (
        qwen_3,
        ["<|im_start|>", "user\nHi", "<|im_end|>", "\n", "<|im_start|>", "assistant\n"],
        [
            *("<|im_start|>", "system\nBe brief.", "<|im_end|>", "\n"),
            *("<|im_start|>", "user\nHi", "<|im_end|>", "\n"),
            *("<|im_start|>", "assistant\nYes?", "<|im_end|>", "\n"),
            *("<|im_start|>", "user\nHi", "<|im_end|>", "\n", "<|im_start|>", "assistant\n"),
        ],
    ),
}


@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize("talk", [False, True])
def test_prompts_are_those_of_the_family_token_by_token(family: str, talk: bool) -> None:
    make, short, long = CASES[family]
    made = make()
    messages: Any = TALK if talk else HI
    expected = ids(made, *(long if talk else short))
    assert encode_rendered(made, render(made, messages, prompt=True)) == expected
    assert encode_chats(made, [messages], prompt=True)["input_ids"] == [expected]


@pytest.mark.parametrize(("thinking", "opened"), [(None, []), (True, []), (False, ["<think>\n\n</think>\n\n"])])
def test_the_switch_of_qwen_3(thinking: bool | None, opened: list[str]) -> None:
    made = qwen_3()
    asked: Any = HI
    expected = ids(made, *CASES["qwen-3"][1], *opened)
    assert encode_rendered(made, render(made, asked, prompt=True, thinking=thinking)) == expected


def test_a_template_without_the_switch_refuses_it() -> None:
    asked: Any = HI
    with pytest.raises(DataError, match="has no switch enable_thinking"):
        render(llama_3(), asked, prompt=True, thinking=True)


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("user\n", "It is 4.", ("", "It is 4.")),
        ("user\n", "<think>\n2 + 2\n</think>\n\nIt is 4.", ("2 + 2", "It is 4.")),
        ("user\n<think>\n", "2 + 2\n</think>\nIt is 4.", ("2 + 2", "It is 4.")),
        ("user\n", "<think>\nso many", ("so many", "")),
        ("user\n<think>\n\n</think>\n\n", "It is 4.", ("", "It is 4.")),
        ("user\n", "A tag </think> in an answer.", ("", "A tag </think> in an answer.")),
    ],
)
def test_reasoning_is_parted_from_the_answer(prompt: str, text: str, expected: tuple[str, str]) -> None:
    assert split_reasoning(prompt, text) == expected
