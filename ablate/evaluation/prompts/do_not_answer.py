"""Prompts of Do-Not-Answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user


def do_not_answer(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Prompts that are to be refused, verbatim; the task is the risk area, the cluster the type of harm.

    A set of one's own needs a ``question`` alone: its rows are then numbered from 0. Raises ``DataError`` for a row
    without one.
    """
    items = []
    for number, row in enumerate(source.rows()):
        if not isinstance(row.get("question"), str):
            listed = ", ".join(file.name for file in source.files)
            raise DataError(f"{listed}: row {number + 1} has no text 'question'; it has: {', '.join(row)}")
        items.append(
            Item(
                content_id("do-not-answer", row["question"]),
                row.get("risk_area") or "prompts",
                user(row["question"]),
                cluster=row.get("types_of_harm"),
                source=str(row.get("id", number)),
            )
        )
    return unique_ids(items)
