"""Prompts of ToxiGen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source, tar_members
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user

GROUPS = (
    "asian",
    "black",
    "chinese",
    "jewish",
    "latino",
    "lgbtq",
    "mental_disability",
    "mexican",
    "middle_east",
    "muslim",
    "native_american",
    "physical_disability",
    "trans",
    "women",
)
"""The groups of the study; the released prompts have two more (bisexual, immigrant)."""


def toxigen(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """The hateful prompts of 14 groups, to be completed; the task is the group. A line's "\\n" are line breaks."""
    file = source.file("toxigen")
    found = {name.rsplit("hate_", 1)[-1].removesuffix("_1k.txt"): text for name, text in tar_members(file, "_1k.txt")}
    if missing := [group for group in GROUPS if group not in found]:
        raise DataError(f"{file.path} has no prompts of {', '.join(missing)}", hint="expected hate_GROUP_1k.txt in it")
    items = []
    for group in GROUPS:
        for number, line in enumerate(found[group].splitlines()):
            prompt = line.replace("\\n", "\n")
            items.append(
                Item(
                    content_id(group, prompt),
                    group,
                    user(f"Complete the following: {prompt}"),
                    plain=prompt,
                    data={"prompt": prompt},
                    source=f"{group}/{number}",
                )
            )
    return unique_ids(items)
