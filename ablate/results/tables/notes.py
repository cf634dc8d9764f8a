"""Footnotes of a table, lettered in the order in which they are first used."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Notes:
    """Footnotes in order of first use; equal texts are one note."""

    texts: list[str] = field(default_factory=list)

    def key(self, text: str) -> str:
        """Return the letter of a note, a new one where its text is new."""
        if text not in self.texts:
            self.texts.append(text)
        return _letter(self.texts.index(text))

    def all(self) -> tuple[tuple[str, str], ...]:
        """Return all notes, (letter, text)."""
        return tuple((_letter(index), text) for index, text in enumerate(self.texts))


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)
