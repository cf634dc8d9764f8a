"""Prompts of the pocket world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item
from ablate.pocket.language import question_text


def pocket(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Items of the pocket world; the task is the skill. Without a chat template the corpus' own form asks them."""
    if not source.pocket:
        raise DataError("the prompts of the pocket world come from a pocket stage")
    return [
        Item(
            row["id"],
            row["skill"],
            tuple(row["prompt"]),
            plain=question_text("\n\n".join(message["content"] for message in row["prompt"])),
            data=row,
            source=row["id"],
        )
        for row in source.rows()
    ]
