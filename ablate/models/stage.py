"""Existing models as stages: a folder or a hub snapshot, checked and placed in the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ablate.context import StageContext
from ablate.errors import DataError
from ablate.models.loading import FULL_REVISION, load_tokenizer, tokenizer_fingerprint

WANTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "merges.txt", "vocab.*")


def run(context: StageContext) -> dict[str, Any]:
    """Place the model of ``locations["model"]`` (a folder, or a hub id) in ``model/``.

    Config: ``source`` is ``{hub, revision}`` (the full commit; the snapshot's files are linked, they never change) or
    ``{digest}`` (a folder, which is copied: its owner may write to it); ``chat`` (default true): the tokenizer must
    have a chat template; ``scores`` (default false): it is a reward model, whose template and tokenizer may both begin
    texts. A source without safetensors weights is refused: its weights would be pickles.
    """
    source, config = context.locations["model"], context.config
    hub = "hub" in config["source"]
    folder = fetch_snapshot(source, config["source"]["revision"]) if hub else Path(source)
    files = model_files(folder, source)
    target = context.output / "model"
    target.mkdir()
    for path in files:
        (link_or_copy if hub else shutil.copyfile)(path.resolve(), target / path.name)
    scores = bool(config.get("scores"))
    tokenizer = load_tokenizer(target, template=bool(config.get("chat", True)), doubled_bos=scores)
    return {"files": len(files), "tokenizer": tokenizer_fingerprint(tokenizer)}


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy where the file system allows no link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def model_files(folder: Path, source: object) -> list[Path]:
    """Return the files of a model's folder, of ``source``; raises DataError where config or weights are not there."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and any(map(path.match, WANTED))]
    names = {path.name for path in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise DataError(
            f"{source} has no config.json or no safetensors weights",
            hint="save the model once with save_pretrained; pickled weights are not loaded",
        )
    return files


def fetch_snapshot(source: str, revision: str) -> Path:
    """Return the files of a model of the hub at a full commit; those that its cache lacks are downloaded."""
    if not FULL_REVISION.fullmatch(revision):
        raise DataError(f"the hub revision {revision!r} is no full commit", hint="40 hexadecimal digits")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DataError(
            f"can't get {source} at {revision}: {error}",
            hint=f"fetch it where there is a network: hf download {source} --revision {revision}",
        ) from error
