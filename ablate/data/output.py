"""From spooled examples to the files of a dataset stage: some are sampled, equal ones get ids of their own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ablate.data.spool import Spool, Spooled
from ablate.data.words import MeanWords


@dataclass(slots=True)
class Written:
    """Counts of what was written; ``rows`` gave an example that was written, ``rows_not_sampled`` only others."""

    words: MeanWords
    made: int = 0
    written: int = 0
    duplicates: int = 0
    prompts: int = 0
    rows: int = 0
    rows_not_sampled: int = 0


def smallest(keys: Iterable[int], count: int) -> list[int]:
    """Return the positions of the ``count`` smallest keys; the memory used grows with ``count`` only."""
    return [position for _, position in heapq.nsmallest(count, ((key, i) for i, key in enumerate(keys)))]


def write_examples(spool: Spool, sample: int | None, examples: Path, prompts: Path, words: MeanWords) -> Written:
    """Write ``sample`` examples (None: all) in their order to ``examples``, and each of their prompts once.

    ``words`` counts what is written. Where both paths are one, the examples are prompts. Memory holds a key and two ids
    an example, no text.
    """
    selected = _mask(spool, sample)
    counts, row = Written(words, made=len(spool.keys)), _Row()
    seen: Counter[int] = Counter()
    seen_prompts: set[int] = set()
    with ExitStack() as stack:
        out = stack.enter_context(examples.open("wb"))
        prompts_out = stack.enter_context(prompts.open("wb")) if prompts != examples else None
        for index, example in enumerate(spool.examples()):
            if example.position != row.position:
                row.count(counts)
                row = _Row(example.position, example.rows)
            if not selected[index]:
                continue
            row.written = True
            seen[example.id] += 1
            out.write(_with_own_id(example, seen[example.id]) + b"\n")
            is_new = example.prompt_id not in seen_prompts
            words.add(example.words, new_prompt=is_new)
            if is_new:
                seen_prompts.add(example.prompt_id)
                if prompts_out:
                    prompts_out.write(example.prompt + b"\n")
        row.count(counts)
    counts.written, counts.prompts = seen.total(), len(seen_prompts)
    counts.duplicates = counts.written - len(seen)
    return counts


@dataclass(slots=True)
class _Row:
    """The row (or group) whose examples are passing: those of one come one after another."""

    position: int = -1
    rows: int = 0
    written: bool = False

    def count(self, counts: Written) -> None:
        if self.written:
            counts.rows += self.rows
        else:
            counts.rows_not_sampled += self.rows


def _mask(spool: Spool, sample: int | None) -> bytes | bytearray:
    """Return a byte an example: 1 where it is to be written."""
    total = len(spool.keys)
    if sample is None or sample >= total:
        return b"\1" * total
    mask = bytearray(total)
    for index in smallest(spool.keys, sample):
        mask[index] = 1
    return mask


def _with_own_id(example: Spooled, number: int) -> bytes:
    """Return the line of an example; equal ones are all kept (their number is a property of the set), numbered."""
    if number == 1:
        return example.text
    beginning = b'{"id": "%016x' % example.id
    assert example.text.startswith(beginning + b'"')
    return b"%b-%d%b" % (beginning, number, example.text[len(beginning) :])
