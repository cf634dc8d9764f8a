"""The rows of a catalog entry, outside a stage: from its files, or as the pocket world makes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.data.grouping import Unit, all_rows
from ablate.data.sources import DataFile
from ablate.pocket.stage import read_config, rows


def entry_rows(entry: DatasetEntry, root: Path | None) -> Iterator[Unit]:
    """Yield all rows of a set; a missing file is a DataError that says what to put where."""
    config = entry.pocket_config()
    if config is None:
        yield from all_rows(DataFile(name, path) for name, path in sorted(data_files(entry, root).items()))
        return
    file = DataFile(f"{config['split']}.jsonl", Path(f"{config['split']}.jsonl"))  # as the pocket stage calls it
    for index, row in enumerate(rows(read_config(config))):
        yield Unit(file, index, index + 1, json.loads(json.dumps(row)))
