"""Texts that are nearly the same: MinHash (Broder 1997) proposes them, their Jaccard similarity decides.

A text is the set of its runs of three words (normalised, see :func:`ablate.data.audit.texts.words`), each known by its
CRC-32. What consists of two texts (prompt and responses) is similar where both are. 128 permutations make a signature.
Candidates share one of 16 bands of 8 permutations: two texts of similarity 0.8 do with probability 0.947, of 0.9 with
0.9999. Within a band's bucket a text is compared with the first and with the one before it, so that the work stays
linear however large a bucket is.
"""

from __future__ import annotations

import tempfile
import weakref
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ablate.data.audit.findings import Share
from ablate.data.audit.texts import ngrams, words

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
_HOPELESS = 0.6
"""Candidates whose signatures agree less are not compared: five standard errors below the threshold."""
_CHUNK = 4096
_MANY = 5  # examples

Hashes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Near:
    """The texts that have a near-duplicate, the number of groups they form, and a few of the closest."""

    texts: Share
    groups: int
    examples: tuple[str, ...]


class Similar:
    """Near-duplicates among texts; memory holds 512 bytes a text and its excerpt, a temporary file its shingles."""

    def __init__(self) -> None:
        self._sketch = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=int)
        self._signatures = array("I")
        self._shingles = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._shingles.close)
        self._ends = array("Q", [0])
        self._shown: list[str] = []

    def add(self, shown: str, first: str, second: str | None = None) -> None:
        """Take one text, or two that belong together; ``shown`` stands for them in examples."""
        parts = [_shingles(first, 0)] + ([] if second is None else [_shingles(second, 1)])
        hashes = np.unique(np.concatenate(parts))
        self._sketch.clear()
        self._sketch.update_batch(hashes.tolist())
        self._signatures.frombytes(self._sketch.hashvalues.astype(np.uint32).tobytes())
        self._shingles.write(hashes.tobytes())
        self._ends.append(self._ends[-1] + hashes.nbytes)
        self._shown.append(shown)

    def __len__(self) -> int:
        return len(self._shown)

    def near(self) -> Near:
        """Return what is nearly the same; groups are what hangs together by similar pairs."""
        links = {link: alike for link in self._candidates() if (alike := self._similarity(*link)) >= THRESHOLD}
        if not links:
            return Near(Share(0, len(self)), 0, ())
        one, other = np.array(list(links)).T
        graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(self), len(self)))
        members = Counter(connected_components(graph, directed=False)[1].tolist())
        grouped = [size for size in members.values() if size > 1]
        closest = sorted(links.items(), key=lambda link: (-link[1], link[0]))[:_MANY]
        examples = tuple(f"{alike:.2f}: {self._shown[one]} | {self._shown[other]}" for (one, other), alike in closest)
        return Near(Share(sum(grouped), len(self)), len(grouped), examples)

    def _candidates(self) -> set[tuple[int, int]]:
        """Return the pairs (earlier text, later text) that share a band and whose signatures are not hopeless."""
        signatures = np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        found: set[tuple[int, int]] = set()
        for band in np.split(signatures, BANDS, axis=1):
            for first, later in _bucket_mates(band):
                agree = (signatures[first] == signatures[later]).mean(axis=1) >= _HOPELESS
                found.update(zip(first[agree].tolist(), later[agree].tolist(), strict=True))
        return found

    def _similarity(self, one: int, other: int) -> float:
        """Return the Jaccard similarity of two texts; of what consists of two, that of the less similar ones."""
        first, second = self._read(one), self._read(other)
        return min(_jaccard(first[first % 2 == part], second[second % 2 == part]) for part in np.unique(first % 2))

    def _read(self, text: int) -> Hashes:
        self._shingles.seek(self._ends[text])
        return np.frombuffer(self._shingles.read(self._ends[text + 1] - self._ends[text]), dtype=np.uint32)


def _shingles(text: str, part: int) -> Hashes:
    """Return the hashes of a text's runs of words; the lowest bit says which part of a whole the text is."""
    tokens = words(text)
    runs = ngrams(tokens, min(SHINGLE, len(tokens))) if tokens else (text,)
    return np.array([zlib.crc32(run.encode()) & 0xFFFFFFFE | part for run in runs], dtype=np.uint32)


def _jaccard(one: Hashes, other: Hashes) -> float:
    shared = np.intersect1d(one, other, assume_unique=True).size
    return float(shared / (one.size + other.size - shared))


def _bucket_mates(band: Hashes) -> Iterator[tuple[Places, Places]]:
    """Yield, some at a time, (earlier text, later text) of one bucket: the first with each, and each with the next."""
    keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * band.itemsize))).ravel()
    _, index, bucket = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(bucket, kind="stable")
    follows = np.flatnonzero(bucket[order][1:] == bucket[order][:-1])
    later = order[follows + 1]
    for start in range(0, len(later), _CHUNK):
        some = slice(start, start + _CHUNK)
        yield index[bucket[later[some]]], later[some]
        yield order[follows[some]], later[some]
