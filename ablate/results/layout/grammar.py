"""The language of claims: sums of columns, each of some cells, compared with one another or with a number.

    claim    = sum ("<" | "<=" | ">" | ">=") sum | "abs" "(" sum ")" ("<" | "<=") number
    sum      = ["-"] term {("+" | "-") term}
    term     = number | [number "*"] quantity
    quantity = column ["[" key "=" value {"," key "=" value} "]"]

A column is written as its key in tables: ``average``, ``average(safety,coding)``, a category, a suite,
``suite/metric`` or ``suite/task/metric``. A key is an axis, or ``baseline``; a value with other signs than letters,
digits and ``. _ : / @ + -`` stands in quotes. Names hold dashes, so a minus has a space on either side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BASELINE = "baseline"
"""The key that selects baselines by name."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)(?=[\s*)\]]|$)"
    r"|(?P<name>average\(\s*[\w-]+(?:\s*,\s*[\w-]+)*\s*\)|[A-Za-z][\w./:@-]*)"
    r"|(?P<relation><=|>=|<|>)"
    r"|(?P<sign>[-+*()\[]))"
)
_SELECTION = re.compile(r"""\s*([A-Za-z][\w.-]*)\s*=\s*("[^"]*"|'[^']*'|[\w.:/@+-]+)\s*(,|\])""")


class ClaimError(ValueError):
    """A claim that can't be read; the message says where."""


@dataclass(frozen=True)
class Quantity:
    """A column of the cells with these values of these keys."""

    column: str
    where: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        chosen = ", ".join(f"{key}={value}" for key, value in self.where)
        return f"{self.column}[{chosen}]" if chosen else self.column


@dataclass(frozen=True)
class Claim:
    """``sum of factor * quantity`` above or below ``bound``; ``sign`` is 1 for above, -1 for below, 0 for no relation.

    With ``is_size`` it is the size of the sum that is below the bound.
    """

    terms: tuple[tuple[float, Quantity], ...]
    sign: int = 0
    bound: float = 0.0
    is_size: bool = False


def parse_claim(text: str) -> Claim:
    """Read a claim; raises :class:`ClaimError`."""
    reader = _Reader(text)
    if reader.next_is("name", "abs"):
        return _size(reader)
    left = reader.sum()
    relation = reader.take("relation", "a relation: <, <=, > or >=")
    right = reader.sum()
    reader.end()
    terms = (*left.terms, *((-factor, quantity) for factor, quantity in right.terms))
    if not terms:
        raise ClaimError("a claim names at least one column")
    return Claim(terms, 1 if relation[0] == ">" else -1, right.constant - left.constant)


def parse_sum(text: str) -> Claim:
    """Read a sum of columns that is compared with nothing; raises :class:`ClaimError`."""
    reader = _Reader(text)
    found = reader.sum()
    reader.end()
    if not found.terms or found.constant:
        raise ClaimError("a sum of columns is needed, without a number of its own")
    return Claim(tuple(found.terms))


def _size(reader: _Reader) -> Claim:
    reader.take("name", "abs")
    reader.take("sign", "an opening bracket", "(")
    inner = reader.sum()
    reader.take("sign", "a closing bracket", ")")
    relation = reader.take("relation", "< or <=")
    bound = reader.sum()
    reader.end()
    if relation[0] != "<" or bound.terms or inner.constant or not inner.terms or bound.constant <= 0:
        raise ClaimError("a size is below a number above 0: abs(a - b) < 1")
    return Claim(tuple(inner.terms), -1, bound.constant, is_size=True)


@dataclass
class _Sum:
    terms: list[tuple[float, Quantity]]
    constant: float = 0.0


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text.rstrip(), 0

    def sum(self) -> _Sum:
        """Read terms until something else follows."""
        found, sign = _Sum([]), -1.0 if self.take_sign("-") else 1.0
        while True:
            self._term(found, sign)
            if self.take_sign("+"):
                sign = 1.0
            elif self.take_sign("-"):
                sign = -1.0
            else:
                return found

    def _term(self, found: _Sum, sign: float) -> None:
        kind, word = self._peek()
        if kind == "number":
            self._advance()
            if not self.take_sign("*"):
                found.constant += sign * float(word)
                return
            sign *= float(word)
        found.terms.append((sign, self._quantity()))

    def _quantity(self) -> Quantity:
        column = self.take("name", "a column or a number")
        return Quantity(re.sub(r"\s", "", column), self._selection() if self.take_sign("[") else ())

    def _selection(self) -> tuple[tuple[str, str], ...]:
        chosen: dict[str, str] = {}
        while True:
            found = _SELECTION.match(self.text, self.place)
            if found is None:
                raise self._error("key=value, then a comma or ]")
            key, value, ending = found.groups()
            if key in chosen:
                raise ClaimError(f"{key!r} is selected twice")
            chosen[key] = value.strip("\"'")
            self.place = found.end()
            if ending == "]":
                return tuple(chosen.items())

    def take(self, kind: str, wanted: str, sign: str | None = None) -> str:
        """Read a token of a kind; what was wanted is said where there is another."""
        found, word = self._peek()
        if found != kind or (sign is not None and word != sign):
            raise self._error(wanted)
        self._advance()
        return word

    def take_sign(self, sign: str) -> bool:
        """Read a sign where it is the next one."""
        is_next = self.next_is("sign", sign)
        if is_next:
            self._advance()
        return is_next

    def next_is(self, kind: str, word: str) -> bool:
        """Whether a token is the next one."""
        return self._peek() == (kind, word)

    def end(self) -> None:
        """Refuse what follows."""
        if self.place < len(self.text):
            raise self._error("the end")

    def _peek(self) -> tuple[str, str]:
        found = _TOKEN.match(self.text, self.place)
        return ("", "") if found is None else (str(found.lastgroup), found[str(found.lastgroup)])

    def _advance(self) -> None:
        found = _TOKEN.match(self.text, self.place)
        assert found is not None
        self.place = found.end()

    def _error(self, wanted: str) -> ClaimError:
        rest = self.text[self.place :].strip()
        return ClaimError(f"{wanted} is needed " + (f"before {rest!r}" if rest else "at the end"))
