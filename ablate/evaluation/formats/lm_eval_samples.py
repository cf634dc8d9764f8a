"""lm-eval's ``samples_TASK_TIME.jsonl`` (``--log_samples``): the document that was asked, and the raw responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.evaluation.formats import rows
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """The columns ``doc_id``, ``doc`` and ``resps``."""
    return first is not None and {"doc_id", "doc", "resps"} <= first.keys() and isinstance(first["doc"], Mapping)


def read(path: Path, options: ReadOptions) -> Submission:
    """The id is that of the document where it has one, else its number; a document that several filters read (each has
    its row) counts once. Answers to requests for log-likelihoods become ``logprobs``."""
    found: dict[Any, Output] = {}
    for number, row in rows.numbered_rows(path):
        name = rows.column(path, number, row, "doc_id")
        if name not in found:
            found[name] = _output(path, number, row, options)
    return Submission(path, tuple(found.values()))


def _output(path: Path, number: int, row: Mapping[str, Any], options: ReadOptions) -> Output:
    doc = rows.column(path, number, row, "doc")
    if not isinstance(doc, Mapping):
        raise DataError(f"{path}, row {number}: 'doc' is no document")
    named = next((name for name in rows.IDS if doc.get(name) not in (None, "")), None)
    native: dict[str, Any] = {"id": doc[named] if named else row["doc_id"]}
    native |= {name: doc[name] for name in (*rows.PROMPTS, *rows.TASKS) if isinstance(doc.get(name), str)}
    answers = rows.column(path, number, row, "resps")
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{path}, row {number}: 'resps' holds no answers")
    if all(isinstance(answer, list) and len(answer) == 1 and _scored(answer[0]) for answer in answers):
        native["logprobs"] = [float(answer[0][0]) for answer in answers]
    else:
        native["responses"] = answers
    return rows.output(path, number, native, options)


def _scored(answer: Any) -> bool:
    """Whether an answer is a log-likelihood and whether greedy decoding gives it, which lm-eval writes as texts."""
    return isinstance(answer, list) and len(answer) == 2 and str(answer[1]) in ("True", "False")
