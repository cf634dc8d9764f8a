"""Conversations as a model reads them: in its chat template, begun as its tokenizer begins every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from ablate.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase  # heavy, and light stages know messages too

Ids: TypeAlias = list[int]


class Message(TypedDict):
    """One turn of a dialogue."""

    role: str
    content: str


Messages: TypeAlias = Sequence[Message]


THINKING_SWITCH = "enable_thinking"
"""What chat templates call the choice whether a model thinks before it answers (Qwen 3 and others)."""
THINK, END_OF_THOUGHT = "<think>", "</think>"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prompt: bool = False, thinking: bool | None = None
) -> str:
    """Return a conversation as text in the chat template; a ``prompt`` ends with the generation prompt.

    ``thinking`` turns the template's switch; raises DataError where it has none.
    """
    turns: Any = list(messages)
    switch: dict[str, Any] = {} if thinking is None else {THINKING_SWITCH: thinking}
    if switch and THINKING_SWITCH not in str(tokenizer.chat_template):
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} has no switch {THINKING_SWITCH}",
            hint="leave decoding.thinking out for this model",
        )
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **switch))


def split_reasoning(prompt: str, text: str) -> tuple[str, str]:
    """Return what a model thought and what it answered; thought that never ends leaves no answer.

    A thought begins at the start of the text, or at the end of the rendered prompt, with the mark ``<think>``.
    """
    begun = text.lstrip().startswith(THINK)
    if not begun and not prompt.rstrip().endswith(THINK):
        return "", text
    thought, _, answer = text.partition(END_OF_THOUGHT)
    return thought.strip().removeprefix(THINK).strip(), answer.lstrip()


def plain_text(prompt: Messages) -> str:
    """A prompt for a model without a chat format, where nothing says how it is written for one."""
    return "\n\n".join(message["content"] for message in prompt)


def encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """Return the token ids of text that the chat template rendered."""
    return _begun(list(tokenizer.encode(text, add_special_tokens=False)), _own_bos(tokenizer))


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Messages], *, prompt: bool = False, mask: bool = False
) -> dict[str, list[Ids]]:
    """Return ``input_ids`` of every conversation and, with ``mask``, ``assistant_masks`` (1 on the assistant's)."""
    turns: Any = [list(messages) for messages in conversations]
    encoded: Any = tokenizer.apply_chat_template(
        turns, add_generation_prompt=prompt, return_assistant_tokens_mask=mask, return_dict=True, padding=False
    )
    bos = _own_bos(tokenizer)
    ids = [_begun(row, bos) for row in encoded["input_ids"]]
    if not mask:
        return {"input_ids": ids}
    added = [len(begun) - len(row) for begun, row in zip(ids, encoded["input_ids"], strict=True)]
    masks = [[0] * count + marks for count, marks in zip(added, encoded["assistant_masks"], strict=True)]
    return {"input_ids": ids, "assistant_masks": masks}


def _own_bos(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return the beginning-of-sequence token that the tokenizer puts before any text, or nothing.

    Rendered text is encoded without special tokens, because a template may hold them already. One that leaves the
    first to the tokenizer, as Llama's and Tülu's do, would otherwise have none: the model never saw such a text.
    """
    bos: Any = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer("a")["input_ids"][:1]) == [bos] else []


def _begun(ids: Ids, bos: Ids) -> Ids:
    return ids if ids[: len(bos)] == bos else bos + ids
