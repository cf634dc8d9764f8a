"""What evaluation suites ask, without instructions and examples around it: for comparison with training prompts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ablate.catalogs.suites import Suite
from ablate.data.audit.overlap import Against, Exam, Question
from ablate.data.audit.texts import dialogue
from ablate.data.records import canonical
from ablate.errors import DataError
from ablate.evaluation.items import Item
from ablate.evaluation.suite_items import drawn, whole_suite, without_shots
from ablate.rewards.pairs import Pair


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
    with tempfile.TemporaryDirectory() as folder:
        made = drawn(suite, whole_suite(suite, root, Path(folder)))
    return [Question(one.id, bare_texts(suite, one)) for one in made]


def bare_texts(suite: Suite, made: Item | Pair) -> tuple[str, ...]:
    """Return the question alone, as the data have it, of an item or pair that was made without shots."""
    return _BARE.get(suite.prompts.name, _last_turn)(made)


def _asked(suite: Suite) -> list[Any]:
    """Return what the questions of a suite follow from."""
    limited = [suite.limit, suite.sample_seed] if suite.limit is not None else None
    prompts = [suite.prompts.name, without_shots(suite.prompts.options)]
    if suite.prompts.name == "lm-eval":
        prompts = ["lm-eval", suite.prompts.options["rows"]]
    return [suite.items_config(), list(suite.files), prompts, limited]


def _last_turn(made: Item | Pair) -> tuple[str, ...]:
    return (made.prompt[-1]["content"],) if made.prompt else ()


def _gsm8k(item: Item) -> tuple[str, ...]:
    return (dialogue(item.prompt).partition("Question: ")[2],)


def _mmlu(item: Item) -> tuple[str, ...]:
    """The question alone, and with its options."""
    asked = dialogue(item.prompt).partition("\n\n")[2].removesuffix("\nAnswer:")
    return asked.rpartition("\nA. ")[0], asked


def _question(item: Item) -> tuple[str, ...]:
    return (item.data["question"],)


def _toxigen(item: Item) -> tuple[str, ...]:
    return item.data["prompt"], item.prompt[-1]["content"]


def _lm_eval(item: Item) -> tuple[str, ...]:
    texts = [item.data[name] for name in ("question", "prompt") if isinstance(item.data.get(name), str)]
    if not texts:
        raise DataError(
            f"rows of {item.task} have neither 'question' nor 'prompt'", hint=f"found: {', '.join(item.data)}"
        )
    return tuple(texts)


_BARE: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "gsm8k": _gsm8k,
    "rewardbench-judge": _question,
    "mmlu": _mmlu,
    "bbh": _question,
    "truthfulqa": _question,
    "toxigen": _toxigen,
    "lm-eval": _lm_eval,
}
"""Prompts whose items hold more, or something else, than the question; of others the last turn is taken."""
