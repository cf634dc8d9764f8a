"""Prompts and pairs that occur more than once: exactly, and nearly (MinHash, after Broder 1997).

A text is the set of its runs of three words (normalised, see :func:`ablate.data.audit.texts.words`). 128 permutations
estimate the Jaccard similarity of two sets with a standard error of at most 0.044. Candidates share one of 16 bands of
8 permutations: two texts of similarity 0.8 do with probability 0.947, of 0.9 with 0.9999. Within a band's bucket every
text is compared with the first one, so that the work stays linear however large a bucket is.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from datasketch import MinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ablate.data.audit.findings import Finding, Share, Table, not_checked
from ablate.data.audit.items import Audited
from ablate.data.audit.texts import dialogue, excerpt, ngrams, words
from ablate.data.records import digest

THRESHOLD = 0.8
PERMUTATIONS, BANDS = 128, 16
SHINGLE = 3  # words
SEED = 1
METHOD = {
    "threshold": THRESHOLD,
    "permutations": PERMUTATIONS,
    "bands": BANDS,
    "shingle_words": SHINGLE,
    "seed": SEED,
    "hash": "crc32",
}
MOST_PROMPTS = 0.05
MOST_PAIRS = 0.01
CHUNK = 4096
_MANY = 5  # examples


class Similar:
    """Near-duplicates among texts; the memory used is 512 bytes a text and its excerpt."""

    def __init__(self) -> None:
        self._sketch = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32)
        self._signatures = array("I")
        self._shown: list[str] = []

    def add(self, text: str, shown: str) -> None:
        """Take one text; ``shown`` stands for it in examples."""
        tokens = words(text)
        runs = set(ngrams(tokens, min(SHINGLE, len(tokens)))) if tokens else {text}
        self._sketch.clear()
        self._sketch.update_batch([run.encode() for run in runs])
        self._signatures.frombytes(self._sketch.hashvalues.astype(np.uint32).tobytes())
        self._shown.append(shown)

    def __len__(self) -> int:
        return len(self._shown)

    def groups(self) -> tuple[Share, int, tuple[str, ...]]:
        """Return the texts that have a near-duplicate, the number of groups they form, and a few of the closest."""
        signatures = np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        links: dict[tuple[int, int], float] = {}
        for band in np.split(signatures, BANDS, axis=1):
            first, later = _bucket_mates(band)
            for start in range(0, len(first), CHUNK):
                one, other = first[start : start + CHUNK], later[start : start + CHUNK]
                alike = (signatures[one] == signatures[other]).mean(axis=1)
                near = alike >= THRESHOLD
                links |= dict(
                    zip(zip(one[near].tolist(), other[near].tolist(), strict=True), alike[near].tolist(), strict=True)
                )
        if not links:
            return Share(0, len(self)), 0, ()
        ends = np.array(list(links))
        graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(len(self), len(self)))
        members = Counter(connected_components(graph, directed=False)[1].tolist())
        grouped = [size for size in members.values() if size > 1]
        closest = sorted(links.items(), key=lambda link: (-link[1], link[0]))[:_MANY]
        examples = tuple(f"{alike:.2f}: {self._shown[one]} | {self._shown[other]}" for (one, other), alike in closest)
        return Share(sum(grouped), len(self)), len(grouped), examples


def _bucket_mates(band: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return (first text of a bucket, later text of it) for all texts that are not the first of theirs."""
    keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * band.itemsize))).ravel()
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = index[inverse]
    later = np.flatnonzero(first != np.arange(len(first)))
    return first[later], later


class PromptDuplicates:
    """Prompts that occur in several records."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._similar = Similar()
        self._most: dict[str, str] = {}

    def add(self, item: Audited) -> None:
        """Take the record's prompt."""
        key = digest(item.prompt)
        self._seen[key] += 1
        if self._seen[key] == 1:
            self._similar.add(dialogue(item.prompt), _shown(item))
        elif self._seen[key] == 2:
            self._most[key] = _shown(item)

    def finding(self) -> Finding:
        """Return exact and near duplicates with their denominators."""
        check, title = "prompt-duplicates", "Duplicate prompts"
        rule = (
            f"look: more than {100 * MOST_PROMPTS:g} % of the records repeat an earlier prompt, or more than "
            f"{100 * MOST_PROMPTS:g} % of the distinct prompts have a near-duplicate"
        )
        repeats = Share(self._seen.total() - len(self._seen), self._seen.total())
        near, groups, examples = self._similar.groups()
        look = [f"{repeats} records repeat an earlier prompt"] if repeats.above(MOST_PROMPTS) else []
        look += [f"{near} distinct prompts have a near-duplicate"] if near.above(MOST_PROMPTS) else []
        summary = (
            f"{repeats} records repeat an earlier prompt exactly; {near} distinct prompts have a near-duplicate "
            f"({groups:,} groups)"
        )
        often = sorted(self._most, key=lambda key: (-self._seen[key], key))[:_MANY]
        table = Table(
            "Most repeated prompts", ("times", "prompt"), tuple((self._seen[key], self._most[key]) for key in often)
        )
        numbers = {**_numbers(repeats, near, groups), "distinct": len(self._seen)}
        tables = (table,) if often else ()
        return Finding(check, title, summary, rule, tuple(look), numbers=numbers, tables=tables, examples=examples)


class PairDuplicates:
    """Pairs that occur several times, and pairs whose preference is contradicted by another."""

    def __init__(self) -> None:
        self._directions: dict[str, Counter[str]] = {}
        self._similar = Similar()
        self._contradicted: list[str] = []

    def add(self, item: Audited) -> None:
        """Take the record's pairs."""
        for pair in item.pairs:
            sides = [digest(side.messages) for side in (pair.chosen, pair.rejected)]
            key = digest(item.prompt, sorted(sides))
            directions = self._directions.setdefault(key, Counter())
            if not directions:
                texts = (dialogue(turns) for turns in (item.prompt, pair.chosen.messages, pair.rejected.messages))
                self._similar.add("\n\n".join(texts), _shown(item))
            elif sides[0] not in directions:
                self._contradicted.append(_shown(item))
            directions[sides[0]] += 1

    def finding(self) -> Finding:
        """Return exact, contradicting and near duplicates with their denominators."""
        check, title = "pair-duplicates", "Duplicate pairs"
        rule = (
            f"look: more than {100 * MOST_PAIRS:g} % of the pairs repeat an earlier one, more than "
            f"{100 * MOST_PROMPTS:g} % have a near-duplicate, or one pair is there in both directions"
        )
        total = sum(count.total() for count in self._directions.values())
        if not total:
            return not_checked(check, title, rule, "the set has no pairs")
        repeats = Share(sum(count.total() - len(count) for count in self._directions.values()), total)
        both = Share(sum(len(count) > 1 for count in self._directions.values()), len(self._directions))
        near, groups, examples = self._similar.groups()
        look = [f"{repeats} pairs repeat an earlier one"] if repeats.above(MOST_PAIRS) else []
        look += [f"{both} pairs of responses are there in both directions"] if both.count else []
        look += [f"{near} distinct pairs have a near-duplicate"] if near.above(MOST_PROMPTS) else []
        summary = (
            f"{repeats} pairs repeat an earlier one exactly; both directions of {both} distinct pairs; {near} distinct "
            f"pairs have a near-duplicate ({groups:,} groups)"
        )
        numbers = {**_numbers(repeats, near, groups), "both_directions": both.as_json()}
        examples = (*(f"both directions: {shown}" for shown in self._contradicted[:_MANY]), *examples)
        return Finding(check, title, summary, rule, tuple(look), numbers=numbers, examples=examples)


def _numbers(repeats: Share, near: Share, groups: int) -> dict[str, Any]:
    return {"exact": repeats.as_json(), "near": near.as_json(), "near_groups": groups, "method": METHOD}


def _shown(item: Audited) -> str:
    return f"row {item.row} “{excerpt(dialogue(item.prompt), 100)}”"
