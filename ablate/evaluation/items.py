"""What a model is asked (items), what it answers (responses, likelihoods), and their files."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.subsets import at_most_each
from ablate.models.chat import Messages, plain_text

Finish = Literal["eos", "length", "stop", "too_long"]

ITEMS = "items.jsonl"
RESPONSES = "responses.jsonl"
LIKELIHOODS = "likelihoods.jsonl"
PROTOCOL = "protocol.json"
SERVED = "served.json"
"""Who responded and when, where it was a server."""


@dataclass(frozen=True)
class Item:
    """One example: what is asked and all that its grader needs.

    ``source`` is the id that the published data give the example ("HumanEval/12"), by which outputs from elsewhere
    name it: unique in a suite; a row's number from 0 where the data have no ids, "task/number" where they have tasks.
    ``prefix`` starts the assistant's turn (chat mode); ``plain`` is the whole prompt without a chat template;
    ``choices`` are the continuations whose log-likelihoods are compared; ``data`` is the grader's.
    """

    id: str
    task: str
    prompt: Messages
    prefix: str = ""
    plain: str | None = None
    choices: tuple[str, ...] = ()
    cluster: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    followups: tuple[str, ...] = ()
    """User turns after the first, each asked when the one before is answered."""
    temperature: float | None = None
    """Of the responses to this item, where it is not the suite's."""

    def plain_text(self) -> str:
        """The prompt for a model without a chat format."""
        if self.plain is not None:
            return self.plain
        return plain_text(self.prompt)


@dataclass(frozen=True)
class Response:
    """One answer. ``finish``: eos, length (cut at the token limit), stop (a stop string), too_long (the prompt does
    not fit the model's context: nothing was generated). ``tokens`` counts the response's tokens, EOS included.
    ``reasoning`` is what a thinking model wrote before its answer; no grader sees it."""

    id: str
    task: str
    sample: int
    prompt: str
    response: str
    finish: Finish
    tokens: int
    reasoning: str = ""
    turn: int = 0
    """Which user turn it answers, from 0."""


@dataclass(frozen=True)
class Likelihoods:
    """Summed log-probabilities of an item's choices (natural log); null where the prompt does not fit.

    ``greedy`` says of each choice whether greedy decoding would produce it; ``request`` is a digest of prompt and
    choices as the model saw them.
    """

    id: str
    task: str
    request: str
    logprobs: tuple[float, ...] | None
    greedy: tuple[bool, ...] | None = None


def user(content: str) -> Messages:
    """A prompt of one user turn."""
    return ({"role": "user", "content": content},)


def content_id(task: str, *parts: Any) -> str:
    """A name for an example that follows from its content alone."""
    text = json.dumps([task, *parts], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"{task}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def request_digest(prompt: str, choices: Iterable[str] = ()) -> str:
    """Sixteen hex digits of a rendered prompt and its choices."""
    text = json.dumps([prompt, *choices], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unique_ids(items: Iterable[Item]) -> list[Item]:
    """Items with ``-2``, ``-3``, … appended to the ids of repeated content."""
    seen: Counter[str] = Counter()
    unique = []
    for item in items:
        seen[item.id] += 1
        times = seen[item.id]
        unique.append(item if times == 1 else Item(**{**_shallow(item), "id": f"{item.id}-{times}"}))
    return unique


def subset(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """At most ``limit`` items of each task, in their old order.

    With one task the draw is ``random.Random(seed).sample(items, limit)``, as in open-instruct; with several each
    has a stream of its own, so that a task's draw does not depend on the others.
    """
    if limit is None:
        return items
    alone = len({item.task for item in items}) == 1
    return at_most_each(
        items, limit, lambda item: item.task, lambda task: random.Random(seed if alone else f"{seed}:{task}")
    )


def write_items(folder: Path, items: Iterable[Item]) -> None:
    """Write ``items.jsonl``."""
    write_json_lines(folder / ITEMS, [asdict(item) for item in items])


def read_items(folder: Path) -> list[Item]:
    """Read ``items.jsonl``."""
    rows = read_json_lines(folder / ITEMS)
    tuples = ("prompt", "choices", "followups")
    return [Item(**row | {name: tuple(row[name]) for name in tuples if name in row}) for row in rows]


def write_responses(folder: Path, responses: Iterable[Response]) -> None:
    """Write ``responses.jsonl``."""
    write_json_lines(folder / RESPONSES, [asdict(response) for response in responses])


def read_responses(folder: Path) -> list[Response]:
    """Read ``responses.jsonl``."""
    return [Response(**row) for row in read_json_lines(folder / RESPONSES)]


def write_likelihoods(folder: Path, likelihoods: Iterable[Likelihoods]) -> None:
    """Write ``likelihoods.jsonl``."""
    write_json_lines(folder / LIKELIHOODS, [asdict(row) for row in likelihoods])


def read_likelihoods(folder: Path) -> list[Likelihoods]:
    """Read ``likelihoods.jsonl``."""
    rows = read_json_lines(folder / LIKELIHOODS)
    return [
        Likelihoods(row["id"], row["task"], row["request"], _tuple(row["logprobs"]), _tuple(row["greedy"]))
        for row in rows
    ]


def artifact_folder(path: Path) -> Path:
    """The folder of an artifact that is named by its folder or by one of its files."""
    return path if path.is_dir() else path.parent


def _shallow(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Item.__dataclass_fields__}


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
