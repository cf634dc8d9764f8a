"""What suites read: files of the data root, checked against their digests, or a pocket folder."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.context import StageContext
from ablate.data.sources import DataFile, folder_files, read_rows, root_files
from ablate.errors import DataError, StageError


@dataclass(frozen=True)
class Source:
    """The data files of a suite; ``pocket`` says that they come from the pocket world."""

    files: tuple[DataFile, ...]
    pocket: bool = False

    def file(self, part: str) -> DataFile:
        """The one file whose relative name contains ``part``."""
        found = [file for file in self.files if part in file.name]
        if len(found) != 1:
            listed = ", ".join(file.name for file in self.files)
            raise DataError(f"expected one data file with {part!r} in its name, found {len(found)} among: {listed}")
        return found[0]

    def rows(self, part: str = "") -> list[dict[str, Any]]:
        """All rows of the files whose relative name contains ``part``."""
        rows = [dict(row) for file in self.files if part in file.name for _, row in read_rows(file)]
        if not rows:
            raise DataError(f"no rows in {', '.join(file.name for file in self.files)}")
        return rows


def open_source(context: StageContext) -> Source:
    """The data of a stage: ``config.files`` below ``locations.root`` (digests checked), else its ``items`` input."""
    digests: Mapping[str, str] = context.config.get("files") or {}
    if digests:
        root = context.locations.get("root")
        return Source(tuple(root_files(digests, Path(root) if root else None)))
    if "items" not in context.inputs:
        raise StageError("this suite needs data files or an input 'items'; the stage has neither")
    return Source(tuple(folder_files(context.inputs["items"])), pocket=True)


def tar_members(file: DataFile, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of the members of a tar file whose name ends in ``suffix``, sorted by name."""
    try:
        with tarfile.open(file.path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                handle = archive.extractfile(member) if member.name.endswith(suffix) else None
                if handle is not None:
                    yield member.name, handle.read().decode("utf-8")
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError) as error:
        raise DataError(f"data file {file.path} can't be read: {error}") from error
