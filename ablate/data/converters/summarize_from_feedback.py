"""openai/summarize_from_feedback, comparisons: a Reddit post or a news article and two summaries."""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import SummarizeOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row


def convert(row: Row, options: SummarizeOptions) -> Converted:
    """``choice`` is the index of the preferred summary; the prompt ends in ``TL;DR:``, as its authors' did."""
    info, summaries, choice = columns(row, "summarize_from_feedback", "info", "summaries", "choice")
    prompt = _prompt(info)
    if prompt is None or not isinstance(summaries, list) or not all(isinstance(item, dict) for item in summaries):
        return Dropped("not-text")
    if len(summaries) != 2:
        return Dropped("not-two-responses")
    preferred = number(choice)
    if preferred not in (0.0, 1.0):
        return Dropped("label-not-0-or-1")
    if options.minimum_confidence:
        extra = row.get("extra")
        confidence = number(extra.get("confidence")) if isinstance(extra, dict) else None
        if confidence is None or confidence < options.minimum_confidence:
            return Dropped("confidence-below-minimum")
    return two_responses(
        row,
        user_prompt(prompt),
        [item.get("text") for item in summaries],
        source="summarize_from_feedback",
        ranks=(1, 2) if preferred == 0.0 else (2, 1),
        models=[item.get("policy") for item in summaries],
    )


def _prompt(info: Any) -> str | None:
    """Return subreddit, title and post, or title and article; None where there is neither post nor article."""
    if not isinstance(info, dict):
        return None
    post, article = info.get("post"), info.get("article")
    if isinstance(post, str) and post.strip():
        lines = [("SUBREDDIT: r/", info.get("subreddit")), ("TITLE: ", info.get("title")), ("POST: ", post)]
    elif isinstance(article, str) and article.strip():
        lines = [("TITLE: ", info.get("title")), ("ARTICLE: ", article)]
    else:
        return None
    return "\n".join(f"{mark}{text.strip()}" for mark, text in lines if isinstance(text, str)) + "\nTL;DR:"
