"""openai/webgpt_comparisons: a question, two answers with numbered references, and a score of each."""

from __future__ import annotations

import re

from ablate.catalogs.converters import WebGPTOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row

_CITATION = re.compile(r"[ \t]*\[\d+(?:,\s*\d+)*\]")


def convert(row: Row, options: WebGPTOptions) -> Converted:
    """The scores (-1 to 1) label the answers; equal ones are a tie. A question is its ``full_text``."""
    names = ("question", "answer_0", "answer_1", "score_0", "score_1")
    question, *answers, score_0, score_1 = columns(row, "webgpt_comparisons", *names)
    text = question.get("full_text") if isinstance(question, dict) else question
    if not isinstance(text, str) or not all(isinstance(answer, str) for answer in answers):
        return Dropped("not-text")
    scores = (number(score_0), number(score_1))
    if None in scores:
        return Dropped("no-score")
    if options.citations == "strip":
        answers = [_CITATION.sub("", answer) for answer in answers]
    return two_responses(row, user_prompt(text), answers, source="webgpt", ranks=None, scores=scores)
