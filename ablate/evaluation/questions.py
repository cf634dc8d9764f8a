"""What evaluation suites ask, without instructions and examples around it: for comparison with training prompts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import locate
from ablate.catalogs.suite_code import resolve_entry
from ablate.catalogs.suites import PAIR_ENGINES, Suite
from ablate.context import EventLog, StageContext, import_function
from ablate.data.audit.overlap import Against, Exam, Question
from ablate.data.audit.texts import dialogue
from ablate.data.records import canonical
from ablate.data.sources import DataFile, folder_files
from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item, subset
from ablate.pocket import stage as pocket
from ablate.rewards.pairs import Pair, pair_subset


def collect(suites: Iterable[Suite], root: Path | None, *, skip_missing: bool) -> Against:
    """Return the questions of suites; those that ask the same ones are one :class:`Exam`.

    A file that is not under the data root is a ``DataError``; with ``skip_missing`` its suites are listed instead.
    """
    together: dict[str, list[Suite]] = defaultdict(list)
    for suite in suites:
        together[canonical(_asked(suite))].append(suite)
    exams: list[Exam] = []
    missing: dict[str, str] = {}
    for same in together.values():
        try:
            exams.append(Exam(tuple(suite.name for suite in same), tuple(questions(same[0], root))))
        except DataError as error:
            if not skip_missing:
                raise
            missing |= {suite.name: error.message for suite in same}
    return Against(tuple(exams), missing)


def questions(suite: Suite, root: Path | None) -> list[Question]:
    """Return what one suite asks: every example it would be given, its limit and sample seed applied."""
    name = suite.prompts.name
    build = import_function(resolve_entry("prompts", name), "the prompts of this suite")
    with tempfile.TemporaryDirectory() as folder:
        made = build(_source(suite, root, Path(folder)), _without_shots(suite.prompts.options))
    bare = _BARE.get(name, _last_turn)
    if suite.engine in PAIR_ENGINES:
        return [Question(pair.id, bare(pair)) for pair in pair_subset(made, suite.limit, suite.sample_seed)]
    return [Question(item.id, bare(item)) for item in subset(made, suite.limit, suite.sample_seed)]


def _asked(suite: Suite) -> list[Any]:
    """Return what the questions of a suite follow from."""
    limited = [suite.limit, suite.sample_seed] if suite.limit is not None else None
    prompts = [suite.prompts.name, _without_shots(suite.prompts.options)]
    if suite.prompts.name == "lm-eval":
        prompts = ["lm-eval", suite.prompts.options["rows"]]
    return [suite.items_config(), list(suite.files), prompts, limited]


def _without_shots(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "shots": 0} if "shots" in options else dict(options)


def _source(suite: Suite, root: Path | None, folder: Path) -> Source:
    config = suite.items_config()
    if config is None:
        needed_by = f"suite {suite.name!r}"
        return Source(tuple(DataFile(name, locate(name, root, needed_by)) for name in suite.files))
    pocket.run(StageContext("pocket", config, {}, folder, folder, EventLog(folder / "events.jsonl")))
    return Source(tuple(folder_files(folder / "data")), pocket=True)


def _last_turn(made: Item | Pair) -> tuple[str, ...]:
    return (made.prompt[-1]["content"],) if made.prompt else ()


def _gsm8k(item: Item) -> tuple[str, ...]:
    return (dialogue(item.prompt).partition("Question: ")[2],)


def _mmlu(item: Item) -> tuple[str, ...]:
    """The question alone, and with its options."""
    asked = dialogue(item.prompt).partition("\n\n")[2].removesuffix("\nAnswer:")
    return asked.rpartition("\nA. ")[0], asked


def _lm_eval(item: Item) -> tuple[str, ...]:
    texts = [item.data[name] for name in ("question", "prompt") if isinstance(item.data.get(name), str)]
    if not texts:
        raise DataError(
            f"rows of {item.task} have neither 'question' nor 'prompt'", hint=f"found: {', '.join(item.data)}"
        )
    return tuple(texts)


_BARE: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "gsm8k": _gsm8k,
    "mmlu": _mmlu,
    "lm-eval": _lm_eval,
}
"""Prompts whose items hold more, or something else, than the question; of others the last turn is taken."""
