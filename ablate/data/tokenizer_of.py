"""The tokenizer of a model by name, outside an experiment: loaded, or made as the stages of an experiment make it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ablate.catalogs.datasets import datasets, file_digests
from ablate.catalogs.digests import DigestCache
from ablate.catalogs.models import ModelEntry, Scratch, models
from ablate.context import EventLog, StageContext
from ablate.data import stage as dataset_stage
from ablate.errors import DataError, UnknownNameError
from ablate.models import tokenizers
from ablate.models.loading import load_tokenizer
from ablate.pocket import stage as pocket_stage

INSIDE = ("", "output/model", "output/tokenizer", "model", "tokenizer")
"""Where a folder has its tokenizer: a model's own, a stage of the store, a stage's output."""


def tokenizer_of(name: str, root: Path | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a catalog model, a ``./folder`` or ``hub/id@commit``; it must have a chat template.

    That of a model trained from scratch is made on the fly, from its corpus (below ``root`` where it has files) if
    its recipe reads one. Raises DataError or UnknownNameError.
    """
    entry = models().get(name)
    if entry is not None and entry.scratch is not None:
        with tempfile.TemporaryDirectory() as folder:
            return _made(entry, entry.scratch, root, Path(folder))
    if entry is None and (name.startswith((".", "/", "~")) or Path(name).is_dir()):
        return load_tokenizer(_folder(Path(name).expanduser()))
    hub_id, _, revision = name.partition("@")
    if entry is not None and entry.hub is not None:
        hub_id, revision = entry.hub.id, entry.hub.revision or ""
    elif "/" not in hub_id:
        raise UnknownNameError("model", name, models())
    if not revision:
        raise DataError(
            f"model {hub_id} has no pinned revision",
            hint=f"name it {hub_id}@<full commit, 40 hexadecimal digits>, or ./folder with its files",
        )
    return load_tokenizer(hub_id, revision=revision)


def _folder(path: Path) -> Path:
    found = next((path / name for name in INSIDE if (path / name / "tokenizer_config.json").is_file()), None)
    if found is None:
        raise DataError(
            f"{path} has no tokenizer: there is no tokenizer_config.json",
            hint="name a model's folder, or that of a done stage: ./store/stages/tokenizer-…",
        )
    return found


def _made(entry: ModelEntry, scratch: Scratch, root: Path | None, folder: Path) -> PreTrainedTokenizerBase:
    inputs = {"corpus": _corpus(scratch.corpus, root, folder)} if scratch.tokenizer.reads_corpus else {}
    output = _run(tokenizers.run, folder / "tokenizer", entry.tokenizer_config(), inputs)
    return load_tokenizer(output / "tokenizer")


def _corpus(name: str, root: Path | None, folder: Path) -> Path:
    """Return the documents or conversations of a set, made by its stages in ``folder``."""
    entry = datasets()[name]
    config, inputs = entry.pocket_config(), {}
    if config is not None:
        inputs["source"] = _run(pocket_stage.run, folder / "pocket", config, {}) / "data"
        if entry.format == "documents":
            return inputs["source"]
    digests = file_digests(entry, root, DigestCache(folder / "digests.json"))
    output = _run(dataset_stage.run, folder / "dataset", entry.stage_config(digests), inputs, root)
    return output / "conversations.jsonl"


def _run(
    work: Callable[[StageContext], Any],
    folder: Path,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    root: Path | None = None,
) -> Path:
    """Do a stage's work in a folder of its own; returns its output."""
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    locations = {"root": str(root)} if root is not None else {}
    events = EventLog(folder / "events.jsonl")
    work(StageContext(folder.name, config, inputs, folder / "output", folder / "work", events, locations))
    return folder / "output"
