"""The items or pairs of a suite: in a stage, and without one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.catalogs.suite_code import resolve_entry
from ablate.catalogs.suites import PAIR_ENGINES, Suite
from ablate.context import EventLog, StageContext, import_function
from ablate.data.sources import DataFile, folder_files
from ablate.data.suite_files import Source
from ablate.errors import StageError
from ablate.evaluation.items import Item, subset
from ablate.pocket import stage as pocket
from ablate.rewards.pairs import Pair, pair_subset


def build_items(source: Source, config: Mapping[str, Any]) -> list[Item]:
    """The suite's items: all that its prompts function makes of the data, or the configured draw of them."""
    items = subset(_made(source, config["prompts"]), config["limit"], config.get("sample_seed", 0))
    if not items:
        raise StageError("this suite has no items")
    return items


def suite_source(suite: Suite, root: Path | None, folder: Path) -> Source:
    """The data of a suite outside a stage: files below ``root``, or a pocket folder that is made in ``folder``.

    Raises ``DataError`` that says what to put where.
    """
    config = suite.items_config()
    if config is None:
        return Source(tuple(DataFile(name, path) for name, path in suite.paths(root).items()))
    pocket.run(StageContext("pocket", config, {}, folder, folder, EventLog(folder / "events.jsonl")))
    return Source(tuple(folder_files(folder / "data")), pocket=True)


def whole_suite(suite: Suite, root: Path | None, folder: Path) -> list[Item] | list[Pair]:
    """All items or pairs that a suite's data hold, before its draw, and without the examples of few-shot prompts."""
    source = suite_source(suite, root, folder)
    options = without_shots(suite.prompts.options)
    if "held_out" in options:
        options["held_out"] = 0
    made: list[Item] | list[Pair] = _made(source, {"name": suite.prompts.name, "options": options})
    return made


def drawn(suite: Suite, made: list[Any]) -> list[Any]:
    """The items or pairs that a suite asks of all that its data hold: what is held out left out, its draw applied."""
    made = made[suite.prompts.options.get("held_out", 0) :]
    if suite.engine in PAIR_ENGINES:
        return pair_subset(made, suite.limit, suite.sample_seed)
    return subset(made, suite.limit, suite.sample_seed)


def without_shots(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of prompts that ask the bare question, where they have examples to leave out."""
    return {**options, "shots": 0} if "shots" in options else dict(options)


def _made(source: Source, prompts: Mapping[str, Any]) -> list[Any]:
    build = import_function(resolve_entry("prompts", prompts["name"]), "the prompts of this suite")
    made: list[Any] = build(source, prompts["options"])
    return made
