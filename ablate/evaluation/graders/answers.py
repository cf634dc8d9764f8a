"""Graders of short answers: extraction and exact match."""

from __future__ import annotations

import math
import re
import string
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ablate.evaluation.graders.labels import stored_number
from ablate.evaluation.grading import (
    OVERALL,
    Evidence,
    Example,
    Grades,
    Metric,
    mean_metric,
    mean_metrics,
    response_health,
    shortened,
)
from ablate.evaluation.items import Item

_DIGIT_COMMA = re.compile(r"(\d),(\d)")
_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
_QUANTITY = re.compile(
    r"""
    (?P<sign> (?<![\w)\]}%])[-+\u2212] )?    # behind a digit, a word or a bracket it is an operator or a hyphen
    \$?
    (?P<size> (?: \d{1,3}(?:,\d{3})+(?!\d) | \d+ ) (?:\.\d+)? | \.\d+ )
    (?P<power> [eE][-+]?\d{1,3}(?!\w) )?
    """,
    re.VERBOSE | re.ASCII,
)
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+).")
_IGNORED = (re.compile(","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))
_THE_ANSWER = re.compile(r"[t|T]he answer is (.*?)\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gsm8k_answer(text: str) -> tuple[str, bool]:
    """The last number of a response and whether there was one; else the response itself (open-instruct).

    A sign is captured with decimals only: that is the study's expression.
    """
    text = _DIGIT_COMMA.sub(r"\1\2", text)
    found = _NUMBER.findall(text)
    return (found[-1], True) if found else (text, False)


def gsm8k_gold(answer: str) -> str:
    """What stands after ``####``, commas between digits removed."""
    return _DIGIT_COMMA.sub(r"\1\2", answer.split("####")[-1].strip())


def same_number(text: str, gold: str) -> bool:
    """Whether the last number of a text is that of the gold answer."""
    number = last_number(text)
    return number is not None and number == last_number(gold)


def last_number(text: str) -> Decimal | None:
    """The last number of a text, exactly; None where there is none.

    A comma between groups of three digits is one of thousands, any other ends a number; of a fraction it is the
    denominator, and a unit or percent sign behind it counts for nothing.
    """
    found = list(_QUANTITY.finditer(text))
    if not found:
        return None
    sign = "-" if found[-1]["sign"] in ("-", "\u2212") else ""
    return Decimal(sign + found[-1]["size"].replace(",", "") + (found[-1]["power"] or ""))


def exact_match(prediction: str, gold: str) -> bool:
    """HF evaluate's ``exact_match`` with ``ignore_case`` and ``ignore_punctuation``: so "3.5" equals "35"."""
    return _normalised(prediction) == _normalised(gold)


def _normalised(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)


def gsm8k(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Exact match of the last number (metric ``exact_match``), and what lm-eval's ``gsm8k_cot`` gives each response.

    ``numeric_match`` compares the last number with its sign as a number: 3.5 is not 35, and -5 is not 5.
    ``flexible_extract`` takes the last thing that looks like a number, ``strict_match`` the first that follows "The
    answer is"; both compare as lm-eval does, see :func:`lm_eval_match`. Of a file that says itself which responses are
    right (``is_correct``), ``flag_agreement`` is the share of which ``numeric_match`` says the same.
    """
    examples, failed = [], 0
    for row in evidence.responses:
        answer = evidence.items[row.id].data["answer"]
        prediction, found = gsm8k_answer(row.response)
        failed += not found
        gold = gsm8k_gold(answer)
        values = {"exact_match": exact_match(prediction, gold), "numeric_match": same_number(row.response, gold)} | {
            name: lm_eval_match(extract(row.response), answer.split("####")[-1].strip())
            for name, extract in (("flexible_extract", flexible_extract), ("strict_match", strict_match))
        }
        flag = stored_number(evidence.stored.get(row.id, ()), ("is_correct",))
        if flag is not None:
            values["flag_agreement"] = values["numeric_match"] == bool(flag)
        said = shortened(row.response)
        examples += [
            Example(row.id, row.sample, row.task, name, float(value), None, said) for name, value in values.items()
        ]
    health = {**response_health(evidence.responses), "extraction_failed": failed}
    return Grades(examples, mean_metrics(examples), health)


def gsm8k_gold_response(item: Item) -> str:
    """A response that is right."""
    return f"So the answer is {gsm8k_gold(item.data['answer'])}."


def flexible_extract(response: str) -> str | None:
    """The last number-like part of a response (lm-eval's filter ``flexible-extract`` of ``gsm8k_cot``)."""
    found = _FLEXIBLE.findall(response)
    return next(part for part in found[-1] if part).strip() if found else None


def strict_match(response: str) -> str | None:
    """The number after the first "The answer is" (lm-eval's filter ``strict-match`` of ``gsm8k_cot``)."""
    found = _STRICT.search(response)
    return found[1].strip() if found else None


def lm_eval_match(prediction: str | None, gold: str) -> bool:
    """lm-eval's ``exact_match`` as its GSM8K tasks set it: without case, commas, dollars, a period at the end, and all
    up to the last "#### "; other punctuation counts."""
    return prediction is not None and _lm_eval_normalised(prediction) == _lm_eval_normalised(gold)


def _lm_eval_normalised(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


SIZES = ("three", "five", "seven")
"""Sizes of the two BBH tasks that come in three files each."""


def bbh(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Exact match of what follows "the answer is", else of the whole response (open-instruct).

    ``exact_match`` ignores case and punctuation, so that Dyck words are compared by their lengths alone;
    ``sensitive_match`` ignores nothing. ``task_mean`` is the unweighted mean of the files' exact matches,
    ``task_mean_23`` that of the paper's tasks, where the sizes of logical deduction and of tracking are averaged first.
    """
    examples, failed = [], 0
    for row in evidence.responses:
        prediction, found = bbh_answer(row.response)
        failed += not found
        target = evidence.items[row.id].data["answer"]
        same = exact_match(prediction, target)
        values = {"exact_match": same, "sensitive_match": prediction == target.strip(), "task_mean": same}
        said = shortened(row.response)
        examples += [
            Example(row.id, row.sample, row.task, name, float(value), None, said) for name, value in values.items()
        ]
    means = [metric for metric in mean_metrics(examples) if metric.metric != "task_mean"]
    of_task: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.metric == "task_mean":
            of_task[example.task].append(example)
    by_task = {task: mean_metric(task, "task_mean", own) for task, own in of_task.items()}
    health = {**response_health(evidence.responses), "extraction_failed": failed}
    return Grades(examples, [_task_mean(by_task), _paper_mean(by_task), *means], health)


def bbh_answer(text: str) -> tuple[str, bool]:
    """What stands between "the answer is" and the next period, and whether it was said; else the response itself."""
    found = _THE_ANSWER.search(text)
    return (found[1].strip(), True) if found else (text.strip(), False)


def bbh_gold_response(item: Item) -> str:
    """A response that is right."""
    return f"So the answer is {item.data['answer']}."


def _task_mean(by_task: Mapping[str, Metric]) -> Metric:
    return _weighted("task_mean", by_task, dict.fromkeys(by_task, 1.0))


def _paper_mean(by_task: Mapping[str, Metric]) -> Metric:
    """The mean over the paper's tasks: files that differ in the number of objects alone are one task."""
    groups: dict[str, list[str]] = defaultdict(list)
    for task in by_task:
        groups[re.sub(rf"_({'|'.join(SIZES)})_objects$", "", task)].append(task)
    return _weighted("task_mean_23", by_task, {task: 1 / len(own) for own in groups.values() for task in own})


def _weighted(name: str, by_task: Mapping[str, Metric], weights: Mapping[str, float]) -> Metric:
    """Weighted mean of the tasks' means; its error from theirs, null where a task has none."""
    total, n = sum(weights.values()), sum(metric.n for metric in by_task.values())
    known = [(metric, weights[task]) for task, metric in by_task.items() if metric.value is not None]
    if not known:
        return Metric(OVERALL, name, None, 0)
    value = math.fsum((metric.value or 0.0) * weight for metric, weight in known) / total
    errors = [None if metric.stderr is None else (weight * metric.stderr) ** 2 for metric, weight in known]
    defined = [error for error in errors if error is not None]
    return Metric(
        OVERALL, name, value, n, math.sqrt(math.fsum(defined)) / total if len(defined) == len(errors) else None
    )
