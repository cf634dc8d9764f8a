"""Pairs for reward models: a prompt with a better and a worse response, by subset."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from ablate.catalogs.suite_code import resolve_entry
from ablate.context import import_function
from ablate.data.records import digest
from ablate.data.sources import read_rows
from ablate.data.subsets import at_most_each
from ablate.data.suite_files import Source
from ablate.errors import DataError, StageError
from ablate.models.chat import Messages, plain_text
from ablate.pocket.language import question_text


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, the first the better one."""

    id: str
    task: str
    subset: str
    prompt: Messages
    chosen: str
    rejected: str
    plain: str | None = None
    """The whole prompt without a chat template, where it is not the turns' texts."""
    source: str = ""
    """The id that the published data give the pair: unique in a suite."""

    def plain_text(self) -> str:
        """The prompt for a model without a chat format."""
        return plain_text(self.prompt) if self.plain is None else self.plain

    def facts(self) -> dict[str, Any]:
        """What rows of results say of the pair; lengths of responses are in characters."""
        return {
            "id": self.id,
            "task": self.task,
            "subset": self.subset,
            "chosen_length": len(self.chosen),
            "rejected_length": len(self.rejected),
            **({"source": self.source} if self.source else {}),
        }


@dataclass(frozen=True)
class Candidates:
    """Several responses to one prompt: right ones, any of which may score highest, and wrong ones."""

    id: str
    task: str
    subset: str
    prompt: Messages
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    source: str = ""

    def plain_text(self) -> str:
        """The prompt for a model without a chat format."""
        return plain_text(self.prompt)

    def facts(self) -> dict[str, Any]:
        """What rows of results say of the prompt; lengths of responses are in characters."""
        return {
            "id": self.id,
            "task": self.task,
            "subset": self.subset,
            "chosen_length": [len(text) for text in self.chosen],
            "rejected_length": [len(text) for text in self.rejected],
            "source": self.source,
        }


def responses_of(one: Pair | Candidates) -> list[str]:
    """All responses to a prompt, the chosen ones first."""
    return [*_listed(one.chosen), *_listed(one.rejected)]


def scored_row(one: Pair | Candidates, values: Sequence[Any], cut: int = 0) -> dict[str, Any]:
    """Return the row of results of a prompt: its facts, and what each of its responses was found to be.

    ``chosen`` and ``rejected`` are one value of a pair, lists of candidates; ``truncated`` is there where any was cut.
    """
    split = len(_listed(one.chosen))
    sides: dict[str, Any] = {"chosen": list(values[:split]), "rejected": list(values[split:])}
    if isinstance(one, Pair):
        sides = {side: own[0] for side, own in sides.items()}
    return {**one.facts(), **sides, **({"truncated": cut} if cut else {})}


def truncated(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many responses of rows a model read in part."""
    return sum(row.get("truncated", 0) for row in rows)


def _listed(side: str | tuple[str, ...]) -> tuple[str, ...]:
    return (side,) if isinstance(side, str) else side


# LLMBar's files under the names that RewardBench gives its subsets.
LLMBAR = {
    "natural": "llmbar-natural",
    "adver_neighbor": "llmbar-adver-neighbor",
    "adver_gptinst": "llmbar-adver-GPTInst",
    "adver_gptout": "llmbar-adver-GPTOut",
    "adver_manual": "llmbar-adver-manual",
    "processed_faireval": "faireval",
    "processed_llmeval2": "llmeval2",
    "processed_mtbench_human": "mt-bench-human",
}


def pocket(source: Source, options: Mapping[str, Any]) -> list[Pair]:
    """Clean pairs of the pocket world; the subset is the skill."""
    if not source.pocket:
        raise DataError("the pairs of the pocket world come from a pocket stage")
    pairs = []
    for row in source.rows():
        chosen, rejected = _text(row["chosen"]), _text(row["rejected"])
        prompt = tuple(row["prompt"])
        plain = question_text(plain_text(prompt))
        pairs.append(Pair(row["id"], "pocket-pairs", row["subset"], prompt, chosen, rejected, plain, row["id"]))
    return pairs


def llmbar(source: Source, options: Mapping[str, Any]) -> list[Pair]:
    """LLMBar: ``label`` 1 or 2 names the better output."""
    pairs = []
    for file in source.files:
        stem = PurePosixPath(file.name).name.split(".")[0]
        if stem not in LLMBAR:
            raise DataError(f"{file.name} is no subset of LLMBar", hint=f"known: {', '.join(LLMBAR)}")
        for number, row in read_rows(file):
            if row.get("label") not in (1, 2):
                raise DataError(f"{file.path}: row {number} has label {row.get('label')!r}, allowed: 1, 2")
            outputs = (row["output_1"], row["output_2"])
            chosen, rejected = outputs if row["label"] == 1 else outputs[::-1]
            identity = f"{LLMBAR[stem]}-{digest(row['input'], chosen, rejected)}"
            prompt: Messages = ({"role": "user", "content": row["input"]},)
            place = f"{LLMBAR[stem]}/{number - 1}"
            pairs.append(Pair(identity, "llmbar", LLMBAR[stem], prompt, chosen, rejected, source=place))
    return unique_pairs(pairs)


Asked = TypeVar("Asked", Pair, Candidates)


def unique_pairs(found: Sequence[Asked]) -> list[Asked]:
    """Return what was read with ids and sources that occur once.

    Ids that several subsets use are told apart by the subset; what is still the same gets ``-2``, ``-3``, ….
    """
    counts = Counter(one.source for one in found)
    seen: Counter[str] = Counter()
    unique: list[Asked] = []
    for one in found:
        seen[one.id] += 1
        again = "" if seen[one.id] == 1 else f"-{seen[one.id]}"
        source = one.source if counts[one.source] == 1 else f"{one.id}{again}"
        unique.append(replace(one, id=f"{one.id}{again}", source=source))
    return unique


def build_pairs(source: Source, config: Mapping[str, Any]) -> list[Pair] | list[Candidates]:
    """The pairs of the suite: all that its prompts function makes of the data, or the configured draw of them."""
    build = import_function(resolve_entry("prompts", config["prompts"]["name"]), "the prompts of this suite")
    pairs = pair_subset(build(source, config["prompts"]["options"]), config["limit"], config.get("sample_seed", 0))
    if not pairs:
        raise StageError("this suite has no pairs")
    return pairs


def pair_subset(pairs: list[Asked], limit: int | None, seed: int) -> list[Asked]:
    """At most ``limit`` pairs of each subset, in their old order."""
    if limit is None:
        return pairs
    return at_most_each(pairs, limit, lambda pair: pair.subset, lambda name: random.Random(f"{seed}:{name}"))


def _text(messages: Messages) -> str:
    if len(messages) != 1:
        raise DataError(f"a pair's response must be one assistant turn, found {len(messages)}")
    return messages[0]["content"]
