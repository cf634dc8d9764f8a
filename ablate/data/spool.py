"""Examples between conversion and output: a file that grows, with marks from which a later attempt goes on."""

from __future__ import annotations

import os
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ablate.context import read_json, replacing, write_json

LINES, MARK, DRAWN = "examples.tsv", "mark.json", "drawn.bin"


@dataclass(frozen=True, slots=True)
class Spooled:
    """One example: JSON text (UTF-8) of its output line and of its prompt's, and what the choice of examples needs.

    ``key`` is its draw (the smallest are sampled), ``position`` that of its row (or its group's first row), ``rows``
    how many rows that stands for, ``words`` the lengths of its parts. The ids, which the two texts begin with, are
    numbers of 64 bits.
    """

    key: int
    position: int
    rows: int
    id: int
    prompt_id: int
    words: tuple[int, ...]
    prompt: bytes
    text: bytes

    def line(self) -> bytes:
        """Return the fields between tabs, which JSON text does not hold."""
        numbers = (self.key, self.position, self.rows, self.id, self.prompt_id)
        words = b",".join(b"%x" % count for count in self.words)
        return b"%x\t%x\t%x\t%x\t%x\t%b\t%b\t%b\n" % (*numbers, words, self.prompt, self.text)

    @classmethod
    def of_line(cls, line: bytes) -> Spooled:
        """Return the example of a line."""
        key, position, rows, own, prompt_id, words, prompt, text = line[:-1].split(b"\t")
        counts = tuple(int(count, 16) for count in words.split(b","))
        return cls(
            int(key, 16), int(position, 16), int(rows, 16), int(own, 16), int(prompt_id, 16), counts, prompt, text
        )


class Spool:
    """The examples of one attempt, in a folder whose name says what they are made of.

    A mark holds the length of the file and an account of the rows that it was made of; both are on the disk before
    the mark is. An attempt begins with a copy of the examples up to the furthest mark of the earlier ones, and goes
    on with the rows after it. ``seconds`` are those between two marks; what comes out does not depend on them.
    """

    def __init__(self, origin: str, work: Path, previous: Iterable[Path], seconds: float) -> None:
        name = f"spool-{origin}"
        self.folder = work / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.account: Mapping[str, Any] | None = None
        self.keys = array("Q")
        self._seconds, self._marked = seconds, time.monotonic()
        self._earlier = [folder / name for folder in (work, *previous)]
        self._handle = self._continued()

    def add(self, example: Spooled) -> None:
        """Append an example."""
        self._handle.write(example.line())
        self.keys.append(example.key)

    def due(self) -> bool:
        """Whether it is time for a mark."""
        return time.monotonic() - self._marked >= self._seconds

    def mark(self, rows: int, account: Mapping[str, Any]) -> None:
        """Let later attempts go on after ``rows`` rows; ``account`` is what they are to know, JSON values."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        write_json(self.folder / MARK, {"rows": rows, "bytes": self._handle.tell(), "account": account})
        self._marked = time.monotonic()

    def examples(self) -> Iterator[Spooled]:
        """Yield all examples in the order in which they were added."""
        self._handle.flush()
        with (self.folder / LINES).open("rb") as lines:
            yield from map(Spooled.of_line, lines)

    def drawn(self) -> array[int] | None:
        """Return the positions that this or an earlier attempt kept with :meth:`keep_drawn`, or None."""
        for path in (folder / DRAWN for folder in self._earlier):
            if path.is_file():
                return array("Q", path.read_bytes())
        return None

    def keep_drawn(self, positions: Iterable[int]) -> None:
        """Keep the positions of rows that were drawn before any was converted."""
        with replacing(self.folder / DRAWN) as temporary:
            temporary.write_bytes(array("Q", positions).tobytes())

    def remove(self) -> None:
        """Close and remove the spool."""
        self.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Close the file; what no mark vouches for is not continued."""
        self._handle.close()

    def _continued(self) -> IO[bytes]:
        """Return the file to append to, which holds what the furthest mark of all attempts vouches for."""
        found = [(read_json(folder / MARK), folder / LINES) for folder in self._earlier if (folder / MARK).is_file()]
        whole = [(mark, lines) for mark, lines in found if lines.stat().st_size >= mark["bytes"]]
        if not whole:
            return (self.folder / LINES).open("wb")
        mark, source = max(whole, key=lambda pair: int(pair[0]["rows"]))
        with replacing(self.folder / LINES) as temporary, source.open("rb") as old, temporary.open("wb") as new:
            left = int(mark["bytes"])
            while left:
                line = old.readline()
                self.keys.append(int(line[: line.index(b"\t")], 16))
                new.write(line)
                left -= len(line)
        self.account = mark["account"]
        write_json(self.folder / MARK, mark)
        return (self.folder / LINES).open("ab")
