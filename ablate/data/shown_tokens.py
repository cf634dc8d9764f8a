"""Converted rows as a model gets them: rendered text, token ids with their pieces, and which tokens are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ablate.catalogs.datasets import DatasetEntry
from ablate.data.preview import preview
from ablate.data.tokenise import Limits, Tally, encode_rows
from ablate.data.tokenizer_of import tokenizer_of
from ablate.errors import UsageError
from ablate.models.chat import Ids, Messages, render

KINDS = {"preference": "pairs", "instruction": "conversations", "prompts": "prompts"}


@dataclass(frozen=True)
class Shown:
    """One sequence: its part of the template's text, its ids, and for each id its piece and whether it is trained."""

    name: str
    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    trained: tuple[bool, ...]


def show_tokens(entry: DatasetEntry, root: Path | None, count: int, model: str) -> list[dict[str, Any]]:
    """Return what :func:`ablate.data.preview.preview` does, with ``tokens`` for the examples of each row.

    An example's entry has its ``sequences`` (:class:`Shown` as JSON values), or why tokenisation drops it. No limit of
    length is applied: those are a method's.
    """
    if entry.format not in KINDS:
        raise UsageError(f"{entry.name!r} holds {entry.format}: there is no conversation to render")
    rows, tokenizer = preview(entry, root, count), tokenizer_of(model, root)
    return [
        {**row, "tokens": [_example(value, KINDS[entry.format], tokenizer) for value in row.get("examples", ())]}
        for row in rows
    ]


def _example(value: Mapping[str, Any], kind: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    tally = Tally()
    kept = encode_rows([dict(value)], kind, tokenizer, Limits(), tally)
    if not kept:
        return {"id": value["id"], "dropped": next(iter(tally.dropped))}
    return {"id": value["id"], "sequences": [asdict(shown) for shown in _sequences(value, kept[0], tokenizer)]}


def _sequences(value: Mapping[str, Any], row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Iterator[Shown]:
    if "messages" in value:
        text, mask = render(tokenizer, value["messages"]), row["loss_mask"]
        yield _shown("conversation", text, row["input_ids"], [mark == 1 for mark in mask], tokenizer)
        return
    prompt = render(tokenizer, value["prompt"], prompt=True)
    yield _shown("prompt", prompt, row["prompt_ids"], [False] * len(row["prompt_ids"]), tokenizer)
    for side in ("chosen", "rejected"):
        if side in value:
            ids, whole = row[f"{side}_ids"], render(tokenizer, _joined(value["prompt"], value[side]))
            yield _shown(side, whole.removeprefix(prompt), ids, [True] * len(ids), tokenizer)


def _joined(prompt: Messages, completion: Messages) -> Messages:
    return [*prompt, *completion]


def _shown(name: str, text: str, ids: Ids, trained: list[bool], tokenizer: PreTrainedTokenizerBase) -> Shown:
    pieces: Any = tokenizer.convert_ids_to_tokens(ids)
    return Shown(name, text, tuple(ids), tuple(map(str, pieces)), tuple(trained))


def view(rows: Sequence[Mapping[str, Any]], width: int, *, colour: bool) -> Text:
    """Return rows of :func:`show_tokens` for a terminal: pieces with their ids below them.

    Trained tokens are coloured, or where there is no ``colour`` put in [brackets].
    """
    marked = "in colour" if colour else "in [brackets]"
    text = Text().append(f"Tokens {marked} are trained; no limit of length is applied.\n", style="dim")
    for row in rows:
        more = f" and {row['rows'] - 1} more" if row["rows"] > 1 else ""
        text.append(f"\n{row['file']}, row {row['row']}{more}\n", style="bold")
        if "dropped" in row:
            text.append(f"  dropped: {row['dropped']}\n")
        for example in row["tokens"]:
            text.append_text(_view_example(example, width, colour))
    return text


def _view_example(example: Mapping[str, Any], width: int, colour: bool) -> Text:
    text = Text(f"  {example['id']}")
    if "dropped" in example:
        return text.append(f": dropped: {example['dropped']}\n")
    text.append("\n")
    for shown in example["sequences"]:
        text.append(f"  {shown['name']}: {len(shown['ids'])} tokens, {sum(shown['trained'])} trained\n", style="bold")
        for line in shown["text"].splitlines():
            text.append(f"    | {_printable(line)}\n")
        text.append_text(_view_tokens(shown, width - 4, colour))
    return text


def _view_tokens(shown: Mapping[str, Any], width: int, colour: bool) -> Text:
    """Lay pieces and ids out in columns, as many of them in a line as fit."""
    text, pieces, ids, used = Text(), Text(), Text(), 0
    for token, raw, trained in zip(shown["ids"], shown["pieces"], shown["trained"], strict=True):
        piece = _printable(raw) if colour or not trained else f"[{_printable(raw)}]"
        size = max(cell_len(piece), len(str(token))) + 1
        if used and used + size > width:
            text.append_text(_two_lines(pieces, ids))
            pieces, ids, used = Text(), Text(), 0
        pieces.append(piece + " " * (size - cell_len(piece)), style="bold green" if colour and trained else "")
        ids.append(f"{token:<{size}}", style="dim")
        used += size
    return text.append_text(_two_lines(pieces, ids))


def _two_lines(pieces: Text, ids: Text) -> Text:
    lines = Text()
    for line in (pieces, ids):
        line.rstrip()
        lines.append("    ").append_text(line).append("\n")
    return lines


def _printable(text: str) -> str:
    """Return text without what would move a terminal's cursor or change its colours."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
