"""The stage of the pocket world: writes one generated data set and a manifest that says what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from ablate.catalogs.closed import Closed, validated
from ablate.catalogs.origins import Origins
from ablate.context import StageContext, write_json
from ablate.errors import UnknownNameError, UsageError
from ablate.pocket.corpus import corpus_row, instruction_row
from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import SKILLS, SPLITS, Item, distinct_items, skill_named
from ablate.pocket.preferences import FAMILIES, find_family, preference_names, preference_rows
from ablate.pocket.preferences.noise import NOISE_LEVELS, clean_pair

Row = dict[str, Any]
WHATS = ("corpus", "instructions", "preferences", "items", "pairs")
ALL_SKILLS = "all"


class PocketConfig(Closed):
    """What to generate; equal configs give equal bytes on every machine."""

    what: str = Field(description="corpus, instructions, preferences, items or pairs")
    name: str | None = Field(default=None, description="preference set; for items and pairs a skill or all")
    n: int = Field(gt=0, description="number of rows; for items and pairs of each skill")
    seed: int = Field(default=0, description="seed of the draws; rows depend on it and on their index alone")
    split: str = Field(default="train", description="which items may be used: train, validation or test")
    curtness: float | None = Field(default=None, ge=0, le=1, description="authors who are curt, for instructions alone")
    noise: float | None = Field(default=None, ge=0, le=1, description="flipped labels, for name: noise alone")


def read_config(config: Mapping[str, Any]) -> PocketConfig:
    """Return the checked config; UsageError names the wrong key."""
    checked = validated(PocketConfig, dict(config), Origins("config of a pocket stage").locate)
    if checked.what not in WHATS:
        raise UnknownNameError("pocket data", checked.what, WHATS)
    if checked.split not in SPLITS:
        raise UnknownNameError("pocket split", checked.split, SPLITS)
    if checked.what in ("corpus", "instructions") and checked.name is not None:
        raise UsageError(f"pocket {checked.what} takes no name, got {checked.name!r}", hint="leave name out or null")
    if checked.what in ("items", "pairs"):
        named_skills(checked.name)
    if checked.what == "corpus" and checked.split != "train":
        raise UsageError("the pocket corpus is training text: its split is train")
    if checked.what == "preferences" and checked.name not in (*preference_names(), "noise"):
        raise UnknownNameError("pocket preference set", str(checked.name), (*preference_names(), "noise"))
    if checked.noise is not None and (checked.what != "preferences" or checked.name != "noise"):
        raise UsageError(
            f"noise is read by the preference set 'noise' alone, not by {checked.what} {checked.name!r}",
            hint=f"use name: noise with noise: 0..1, or one of {', '.join(NOISE_LEVELS)} without it",
        )
    if checked.curtness is not None and checked.what != "instructions":
        raise UsageError(f"curtness is read by instructions alone, not by {checked.what}", hint="leave curtness out")
    return checked


def named_skills(name: str | None) -> tuple[str, ...]:
    """Return the skills that the name of an item or pair set stands for; null and ``all`` are every skill."""
    return tuple(SKILLS) if name in (None, ALL_SKILLS) else (skill_named(str(name)).name,)


def item_rows(config: PocketConfig) -> Iterator[Row]:
    """Yield ``n`` distinct items of each skill, the skills in turn."""
    pools = []
    for name in named_skills(config.name):
        items = distinct_items(SKILLS[name], config.split, Draw("items", name, config.seed, config.split))
        pool = list(islice(items, config.n))
        if len(pool) < config.n:
            raise UsageError(
                f"the {config.split} split has {len(pool)} distinct items of {name}, n asks for {config.n}",
                hint=f"set n to {len(pool)} or less",
            )
        pools.append(pool)
    yield from (item.row() for turn in zip(*pools, strict=True) for item in turn)


def pair_rows(config: PocketConfig) -> Iterator[Row]:
    """Yield ``n`` clean pairs of each skill, the skills in turn.

    The items are distinct until a skill has no more, then come again with other responses.
    """
    pools = []
    for name in named_skills(config.name):
        items = distinct_items(SKILLS[name], config.split, Draw("pairs", name, config.seed, config.split))
        pools.append(list(islice(items, config.n)))
    yield from (pair_row(pool[index % len(pool)], config, index) for index in range(config.n) for pool in pools)


def pair_row(item: Item, config: PocketConfig, index: int) -> Row:
    """Return one clean pair of responses to ``item``."""
    chosen, rejected = clean_pair(item, Draw("pair", item.id, config.seed, config.split, index))
    return {
        "id": f"pair-{digest(item.id, chosen, rejected, index)[:16]}",
        "prompt": [{"role": "user", "content": item.prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "subset": item.skill,
    }


def rows(config: PocketConfig) -> Iterator[Row]:
    """Yield the rows that ``config`` describes, in order."""
    if config.what == "corpus":
        yield from (corpus_row(config.seed, index) for index in range(config.n))
    elif config.what == "instructions":
        yield from (
            instruction_row(config.seed, config.split, index, config.curtness or 0.0) for index in range(config.n)
        )
    elif config.what == "items":
        yield from item_rows(config)
    elif config.what == "pairs":
        yield from pair_rows(config)
    else:
        yield from islice(preference_rows(str(config.name), config.seed, config.split, config.noise), config.n)


def manifest(config: PocketConfig, file: str, count: int, sha256: str) -> dict[str, Any]:
    """Return what the data set is: rows, schema, noise, file and its digest."""
    noise: float | None = None
    schema = config.what
    if config.what == "preferences":
        name = str(config.name)
        schema = find_family(name).schema
        if name not in FAMILIES:
            noise = config.noise if config.noise is not None else NOISE_LEVELS.get(name, 0.0)
    return {**config.model_dump(), "rows": count, "schema": schema, "noise": noise, "file": file, "sha256": sha256}


def run(context: StageContext) -> dict[str, Any]:
    """Write ``data/<split>.jsonl`` and ``manifest.json``; return the row count and the digest of the file."""
    config = read_config(context.config)
    folder: Path = context.output / "data"
    folder.mkdir()
    hasher = hashlib.sha256()
    count = 0
    with (folder / f"{config.split}.jsonl").open("wb") as handle:
        for row in rows(config):
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            handle.write(line)
            hasher.update(line)
            count += 1
    described = manifest(config, f"data/{config.split}.jsonl", count, hasher.hexdigest())
    write_json(context.output / "manifest.json", described)
    return {"rows": count, "sha256": hasher.hexdigest()}
