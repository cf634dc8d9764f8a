"""Content digests of files and folders outside the store, remembered by size and modification time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ablate.context import write_json


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class DigestCache:
    """Digests of files; one made earlier counts while path, size and modification time are the same.

    ``file`` is the JSON file that remembers them; it is written by :meth:`save` only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._changed = False

    def of_file(self, path: Path) -> str:
        """Return the sha256 of a file."""
        stat = path.stat()
        key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        entry = self._known.get(key, [])
        if entry[:2] != stamp:
            entry = self._known[key] = [*stamp, sha256_file(path)]
            self._changed = True
        return str(entry[2])

    def of_folder(self, folder: Path) -> str:
        """Return the sha256 over the relative names and contents of a folder's files, hidden ones left out."""
        whole = hashlib.sha256()
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            relative = path.relative_to(folder)
            if not any(part.startswith(".") for part in relative.parts):
                whole.update(f"{relative.as_posix()}\0{self.of_file(path)}\n".encode())
        return whole.hexdigest()

    def save(self) -> None:
        """Write what was hashed since the file was read; nothing when nothing was."""
        if self._changed:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, self._known)
            self._changed = False


def _read(file: Path) -> dict[str, list[int | str]]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return values if isinstance(values, dict) else {}
