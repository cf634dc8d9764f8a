"""Prompts of Do-Not-Answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source
from ablate.evaluation.items import Item, content_id, unique_ids, user


def do_not_answer(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """The 939 prompts verbatim; the task is the risk area, the cluster the type of harm."""
    return unique_ids(
        Item(
            content_id("do-not-answer", row["question"]),
            row["risk_area"],
            user(row["question"]),
            cluster=row["types_of_harm"],
            source=str(row["id"]),
        )
        for row in source.rows("do_not_answer")
    )
