"""From rows of text to token ids, rendered by the model's own chat template, every row accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from ablate.catalogs.converters import RecordsOptions
from ablate.context import StageContext, write_json
from ablate.data import rankings
from ablate.data.converters import native
from ablate.data.pairing import TOLERANCE, positions
from ablate.data.records import PreferenceRecord
from ablate.errors import DataError, UsageError
from ablate.models.chat import Ids, Messages, encode_chats
from ablate.models.loading import load_tokenizer

CHUNK = 1000
"""Rows rendered, tokenised and written at a time: memory does not grow with the data."""

ORDER = "order"
"""Name in a file's metadata of the order in which batches take its rows; absent: a seeded one."""

IDS = pa.list_(pa.int32())
CONVERSATION = pa.schema({"id": pa.string(), "input_ids": IDS, "loss_mask": pa.list_(pa.int8())})
SCHEMAS = {
    "pairs": pa.schema(
        {"id": pa.string(), "prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS, "margin": pa.float64()}
    ),
    "conversations": CONVERSATION,
    "answers": CONVERSATION,
    "prompts": pa.schema({"id": pa.string(), "prompt_ids": IDS}),
    "rankings": rankings.SCHEMA,
    "rated": rankings.SCHEMA,
}
COLUMNS = {
    "pairs": ("prompt", "chosen", "rejected"),
    "conversations": ("messages",),
    "answers": ("prompt", "chosen"),
    "prompts": ("prompt",),
    "rankings": ("prompt", "responses"),
    "rated": ("prompt", "responses"),
}
"""What a row of each format must have, beside its id."""


@dataclass(frozen=True)
class Limits:
    """Longest sequences in tokens (None: no limit), and what happens to a sequence over ``max_length``."""

    max_length: int | None = None
    max_prompt_length: int | None = None
    truncation: str = "drop"

    def __post_init__(self) -> None:
        if self.truncation not in ("drop", "keep-start"):
            raise UsageError(f"unknown truncation {self.truncation!r}", hint="allowed: drop, keep-start")


@dataclass
class Tally:
    """What became of the rows: ``rows == kept + sum(dropped.values())``; ``truncated`` rows are among the kept.

    ``responses`` are those of rankings, and ``left_out`` the ones that are in none, also of rows that are dropped.
    """

    rows: int = 0
    kept: int = 0
    truncated: int = 0
    unknown_tokens: int = 0
    longest: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        responses = {"responses": {"in": self.responses, "left_out": dict(sorted(self.left_out.items()))}}
        return {
            **(responses if self.responses else {}),
            "in": self.rows,
            "kept": self.kept,
            "truncated": self.truncated,
            "dropped": dict(sorted(self.dropped.items())),
            "unknown_tokens": self.unknown_tokens,
            "longest": self.longest,
        }


def run(context: StageContext) -> dict[str, Any]:
    """Tokenise ``data`` with the tokenizer of ``tokenizer``; write tokens.parquet and report.json.

    Config: ``format`` (a key of ``SCHEMAS``), ``max_length`` and ``max_prompt_length`` (tokens, null: no limit),
    ``truncation`` (drop or keep-start; default keep-start for conversations, drop for the others), ``order`` (kept:
    batches take the rows as they come; default: a seeded order).
    """
    kind = context.config["format"]
    if kind not in SCHEMAS:
        raise UsageError(f"unknown format {kind!r}", hint=f"allowed: {', '.join(SCHEMAS)}")
    tokenizer = load_tokenizer(context.inputs["tokenizer"])
    tally = tokenise_file(
        context.inputs["data"],
        context.output / "tokens.parquet",
        tokenizer,
        kind,
        read_limits(context.config),
        order=context.config.get("order"),
    )
    write_json(context.output / "report.json", tally.as_json())
    if not tally.kept:
        raise DataError(f"no row of {context.inputs['data']} was kept: {tally.as_json()}")
    return tally.as_json()


def read_limits(config: Mapping[str, Any]) -> Limits:
    """Return the limits that a config spells."""
    default = "keep-start" if config["format"] == "conversations" else "drop"
    return Limits(config.get("max_length"), config.get("max_prompt_length"), str(config.get("truncation") or default))


def tokenise_file(
    path: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
    limits: Limits,
    *,
    order: str | None = None,
) -> Tally:
    """Tokenise the JSON lines of ``path`` into the parquet file ``target``; return what became of the rows.

    An ``order`` is written into the file's metadata, where the trainers read it.
    """
    tally = Tally()
    rows = _rows(path, kind)
    schema = SCHEMAS[kind].with_metadata({ORDER: order}) if order else SCHEMAS[kind]
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        while chunk := list(islice(rows, CHUNK)):
            if kept := encode_rows(chunk, kind, tokenizer, limits, tally):
                writer.write_table(pa.Table.from_pylist(kept, schema=schema))
    return tally


def encode_rows(
    rows: Sequence[dict[str, Any]], kind: str, tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> list[dict[str, Any]]:
    """Return what is stored of rows of one kind; ``tally`` is told what became of each."""
    encode = _ENCODERS[kind]
    tally.rows += len(rows)
    clean = _without_control_tokens(rows, tokenizer, tally)
    kept = encode(clean, tokenizer, limits, tally) if clean else []
    tally.kept += len(kept)
    return kept


def encode_prompts(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> list[dict[str, Any]]:
    """Return id and prompt_ids of every row whose prompt fits; prompt_ids end with the generation prompt."""
    prompts = encode_chats(tokenizer, [row["prompt"] for row in rows], prompt=True)["input_ids"]
    kept = []
    for row, prompt in zip(rows, prompts, strict=True):
        if _over(prompt, limits.max_prompt_length) or _over(prompt, limits.max_length):
            tally.dropped["prompt-too-long"] += 1
            continue
        _count(tally, tokenizer, prompt)
        kept.append({"id": row["id"], "prompt_ids": prompt})
    return kept


def encode_pairs(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> list[dict[str, Any]]:
    """Return prompt_ids, chosen_ids and rejected_ids of every pair that the limits keep.

    A completion is what the full conversation has beyond the prompt, up to and with the token that ends the turn.
    With keep-start, prompt and completion are cut together at ``max_length``; a pair whose prompt leaves no room
    for a completion, or whose two completions are equal once cut, is dropped.
    """
    prompts = encode_chats(tokenizer, [row["prompt"] for row in rows], prompt=True)["input_ids"]
    sides = [
        encode_chats(tokenizer, [row["prompt"] + row[side] for row in rows])["input_ids"]
        for side in ("chosen", "rejected")
    ]
    kept = []
    for row, prompt, *full in zip(rows, prompts, *sides, strict=True):
        completions = [completion_ids(ids, prompt, tokenizer, row["id"]) for ids in full]
        reason, cut = _fit_pair(prompt, completions, limits)
        if reason:
            tally.dropped[reason] += 1
            continue
        tally.truncated += cut != completions
        _count(tally, tokenizer, prompt + cut[0], prompt + cut[1])
        kept.append(
            {
                "id": row["id"],
                "prompt_ids": prompt,
                "chosen_ids": cut[0],
                "rejected_ids": cut[1],
                "margin": row.get("margin"),
            }
        )
    return kept


def encode_rankings(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    tally: Tally,
    *,
    ordered: bool = True,
) -> list[dict[str, Any]]:
    """Return prompt_ids, completion_ids, ranks (1 is best, equal ones are tied), scores and aspects of every record.

    Responses over ``max_length`` are left out, or cut with keep-start; so are those whose ids equal those of one
    before. A record that keeps fewer than two is dropped and, if it must be ``ordered``, one whose responses all tie.
    """
    kept = []
    for row in rows:
        record = native.convert(row, RecordsOptions())
        if not isinstance(record, PreferenceRecord):
            tally.dropped[getattr(record, "reason", "no-record")] += 1
            continue
        prompt, found = _candidates(str(row["id"]), record, tokenizer, limits, tally)
        places = positions(replace(record, responses=tuple(found.responses)))
        ranks = rankings.dense_ranks(places, TOLERANCE)
        if len(ranks) < 2:
            reason = "prompt-too-long" if found.left_out["prompt-too-long"] else "fewer-than-two-responses"
            tally.dropped[reason] += 1
        elif ordered and max(ranks) == 1:
            tally.dropped["tied"] += 1
        else:
            _count(tally, tokenizer, *(prompt + completion for completion in found.completions))
            kept.append(rankings.stored(str(row["id"]), prompt, found, ranks))
    return kept


def _candidates(
    name: str, record: PreferenceRecord, tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> tuple[Ids, rankings.Candidates]:
    """Return the ids of a record's prompt and of those of its responses that the limits keep."""
    marks = tokenizer.all_special_tokens
    clean = [response for response in record.responses if not _has_marks(response.messages, marks)]
    conversations = [[*record.prompt, *response.messages] for response in clean]
    prompt = encode_chats(tokenizer, [record.prompt], prompt=True)["input_ids"][0]
    full = encode_chats(tokenizer, conversations)["input_ids"] if clean else []
    found, cuts = rankings.Candidates(), 0
    for response, ids in zip(clean, full, strict=True):
        completion = completion_ids(ids, prompt, tokenizer, name)
        problem, cut = _fit(prompt, completion, limits)
        cuts += not problem and cut != completion
        found.add(response, None if problem else cut, problem or "")
    if spelt := len(record.responses) - len(clean):
        found.left_out["control-token-in-text"] += spelt
    tally.truncated += bool(cuts)
    tally.responses += len(record.responses)
    tally.left_out.update(found.left_out)
    return prompt, found


def encode_conversations(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> list[dict[str, Any]]:
    """Return input_ids and loss_mask (1 on tokens of assistant turns, their end included) of every row kept.

    The mask comes from the generation marks of the chat template. A row without an assistant token is dropped.
    """
    encoded = encode_chats(tokenizer, [row["messages"] for row in rows], mask=True)
    kept = []
    for row, ids, mask in zip(rows, encoded["input_ids"], encoded["assistant_masks"], strict=True):
        _require_marks(row, mask, tokenizer)
        kept += _fit_conversation(row["id"], ids, mask, limits, tally)
    for value in kept:
        _count(tally, tokenizer, value["input_ids"])
    return kept


def encode_answers(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, limits: Limits, tally: Tally
) -> list[dict[str, Any]]:
    """Return input_ids and loss_mask of every row kept: 1 on the response chosen for a prompt, and nowhere else."""
    prompts = encode_chats(tokenizer, [row["prompt"] for row in rows], prompt=True)["input_ids"]
    whole = encode_chats(tokenizer, [row["prompt"] + row["chosen"] for row in rows])["input_ids"]
    kept = []
    for row, prompt, ids in zip(rows, prompts, whole, strict=True):
        answer = completion_ids(ids, prompt, tokenizer, row["id"])
        mask = [0] * len(prompt) + [1] * len(answer)
        kept += _fit_conversation(row["id"], prompt + answer, mask, limits, tally)
    for value in kept:
        _count(tally, tokenizer, value["input_ids"])
    return kept


def _fit_conversation(name: str, ids: Ids, mask: Ids, limits: Limits, tally: Tally) -> list[dict[str, Any]]:
    """Return what is stored of a conversation, cut where the limits say so; nothing of one that they drop."""
    if too_long := _over(ids, limits.max_length):
        if limits.truncation == "drop":
            tally.dropped["too-long"] += 1
            return []
        ids, mask = ids[: limits.max_length], mask[: limits.max_length]
    if 1 not in mask:
        tally.dropped["no-assistant-tokens"] += 1
        return []
    tally.truncated += too_long
    return [{"id": name, "input_ids": ids, "loss_mask": mask}]


def _fit_pair(prompt: Ids, completions: list[Ids], limits: Limits) -> tuple[str | None, list[Ids]]:
    """Return why a pair is dropped (None: kept), and its completions, cut where the limits say so."""
    if _over(prompt, limits.max_prompt_length):
        return "prompt-too-long", completions
    if completions[0] == completions[1]:
        return "equal-completions", completions
    (chosen_problem, chosen), (rejected_problem, rejected) = (_fit(prompt, ids, limits) for ids in completions)
    if problem := chosen_problem or rejected_problem:
        return problem, completions
    return ("equal-when-truncated" if chosen == rejected else None), [chosen, rejected]


def _fit(prompt: Ids, completion: Ids, limits: Limits) -> tuple[str | None, Ids]:
    """Return why a completion does not fit (None: it does), and its ids, cut where the limits say so."""
    if _over(prompt, limits.max_prompt_length):
        return "prompt-too-long", completion
    if limits.max_length is None or len(prompt) + len(completion) <= limits.max_length:
        return None, completion
    if limits.truncation == "drop":
        return "too-long", completion
    room = limits.max_length - len(prompt)
    return ("prompt-too-long", completion) if room <= 0 else (None, completion[:room])


def completion_ids(full: Ids, prompt: Ids, tokenizer: PreTrainedTokenizerBase, name: str) -> Ids:
    """Return the ids of ``full`` beyond ``prompt``, without what the template puts after the end of the turn."""
    if full[: len(prompt)] != prompt:
        place = next((i for i, (a, b) in enumerate(zip(full, prompt, strict=False)) if a != b), len(full))
        raise DataError(
            f"row {name}: the generation prompt is no prefix of the conversation: they part at token {place}, "
            f"{tokenizer.decode(full[place : place + 5])!r} against {tokenizer.decode(prompt[place : place + 5])!r}",
            hint="the chat template renders a finished answer differently from one that is asked for; use another",
        )
    completion = full[len(prompt) :]
    end = len(completion)
    while end and completion[end - 1] != tokenizer.eos_token_id:
        end -= 1
    if not end or str(tokenizer.decode(completion[end:])).strip():
        raise DataError(
            f"row {name}: the completion does not end with {tokenizer.eos_token!r}",
            hint="the chat template must end an assistant turn with the tokenizer's eos_token",
        )
    return completion[:end]


def _require_marks(row: Mapping[str, Any], mask: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    answered = any(message["role"] == "assistant" for message in row["messages"])
    if answered and 1 not in mask and "generation" not in str(tokenizer.chat_template):
        raise DataError(
            "the chat template has no {% generation %} marks, so it can't tell which tokens the assistant wrote",
            hint="put {% generation %} … {% endgeneration %} around the assistant's content and its end token",
        )


def _without_control_tokens(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, tally: Tally
) -> list[dict[str, Any]]:
    """Drop rows whose text spells a special token: it would end or start a turn in the middle of one."""
    marks = tokenizer.all_special_tokens
    clean = []
    for row in rows:
        parts = [row[name] for name in ("prompt", "chosen", "rejected", "messages") if name in row]
        if any(_has_marks(messages, marks) for messages in parts):
            tally.dropped["control-token-in-text"] += 1
        else:
            clean.append(row)
    return clean


def _has_marks(messages: Messages, marks: Sequence[str]) -> bool:
    return any(mark in message["content"] for message in messages for mark in marks)


Encoder = Callable[[Sequence[dict[str, Any]], PreTrainedTokenizerBase, Limits, Tally], list[dict[str, Any]]]
_ENCODERS: dict[str, Encoder] = {
    "pairs": encode_pairs,
    "conversations": encode_conversations,
    "answers": encode_answers,
    "prompts": encode_prompts,
    "rankings": encode_rankings,
    "rated": partial(encode_rankings, ordered=False),
}


def _rows(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    needed = COLUMNS[kind]
    try:
        lines = path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(f"can't read {path}: {error}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not a JSON object: {error}") from error
            if not isinstance(row, dict) or any(name not in row for name in ("id", *needed)):
                raise DataError(f"{path}:{number}: a row of {kind} has id, {', '.join(needed)}")
            yield row


def _over(ids: Ids, limit: int | None) -> bool:
    return limit is not None and len(ids) > limit


def _count(tally: Tally, tokenizer: PreTrainedTokenizerBase, *sequences: Ids) -> None:
    unknown = tokenizer.unk_token_id
    for ids in sequences:
        tally.longest = max(tally.longest, len(ids))
        if unknown is not None:
            tally.unknown_tokens += ids.count(unknown)
