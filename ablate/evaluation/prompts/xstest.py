"""Prompts of XSTest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source
from ablate.evaluation.items import Item, content_id, unique_ids, user


def xstest(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """XSTest's prompts verbatim; unsafe ones are those whose type is a contrast. The cluster is the type."""
    items = []
    for row in source.rows():
        unsafe = "contrast" in row["type"]
        task = "unsafe" if unsafe else "safe"
        items.append(
            Item(
                content_id("xstest", row["prompt"]),
                task,
                user(row["prompt"]),
                cluster=row["type"],
                data={"unsafe": unsafe},
                source=str(row["id"]),
            )
        )
    return unique_ids(items)
