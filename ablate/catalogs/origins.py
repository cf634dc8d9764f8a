"""Where the keys of hand-written files stand: file and line of each, also after values are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ablate.errors import Location

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origins:
    """Where every key of a value was written, by its path in the file; ``()`` is the file's first key.

    A merged value has places in several files. ``start`` is where the value stands when it is one of a file's many.
    """

    file: str = ""
    places: Mapping[KeyPath, Location] = field(default_factory=dict)
    start: KeyPath = ()

    def locate(self, *path: str | int) -> Location:
        """Return the place of a key path of the value, or of its nearest parent that was written."""
        whole = (*self.start, *path)
        ends = range(len(whole), -1, -1)
        place = next((self.places[whole[:end]] for end in ends if whole[:end] in self.places), None)
        file, line = (place.file, place.line) if place else (self.file or None, None)
        return Location(file, line, ".".join(map(str, whole)) or None)

    def has(self, *path: str | int) -> bool:
        """Return whether a key path of the value was written."""
        return (*self.start, *path) in self.places

    def inside(self, *path: str | int) -> Origins:
        """Return the origins of the value at ``path``."""
        return replace(self, start=(*self.start, *path))

    def over(self, below: Origins) -> Origins:
        """Return the origins of this value merged over another: mappings deeply, lists whole."""
        depth = len(below.start)
        moved = {
            (*self.start, *path[depth:]): place for path, place in below.places.items() if path[:depth] == below.start
        }
        # A list above replaces the one below, so the places inside the lower one are gone.
        replaced = {path[:-1] for path in self.places if path and isinstance(path[-1], int)}
        kept = {path: place for path, place in moved.items() if not any(path[: len(r)] == r for r in replaced)}
        return replace(self, places={**kept, **self.places})

    def rewritten(self, path: KeyPath, place: Location) -> Origins:
        """Return the origins once the key at ``path``, with all that was in it, is written at ``place`` instead."""
        kept = {key: known for key, known in self.places.items() if key[: len(path)] != path}
        return replace(self, places={**kept, path: place})
