"""Prompts of MMLU."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source, tar_members
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user

LETTERS = ("A", "B", "C", "D")


def mmlu(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Four options compared by the log-likelihood of their letter (open-instruct); the task is the subject."""
    file = source.file("mmlu")
    shots: int = options["shots"]
    dev = {_subject(name): _csv_rows(text) for name, text in tar_members(file, "_dev.csv")} if shots else {}
    items = []
    for name, text in tar_members(file, "_test.csv"):
        subject = _subject(name)
        # The study's formatter puts a space before every word of the subject, hence two after "about".
        spoken = "".join(f" {word}" for word in subject.split("_"))
        head = f"The following are multiple choice questions (with answers) about {spoken}.\n\n"
        head += "".join(f"{_question(row)} {row[5]}\n\n" for row in dev.get(subject, [])[:shots])
        for number, row in enumerate(_csv_rows(text)):
            items.append(
                Item(
                    content_id(subject, row),
                    subject,
                    user(head + _question(row)),
                    prefix=options["answer_prefix"],
                    plain=head + _question(row),
                    choices=tuple(f" {letter}" for letter in LETTERS),
                    data={"answer": LETTERS.index(row[5])},
                    source=f"{subject}/{number}",
                )
            )
    if not items:
        raise DataError(f"no *_test.csv in {file.path}")
    return unique_ids(items)


def _subject(member: str) -> str:
    return member.rsplit("/", 1)[-1].rsplit("_", 1)[0]


def _csv_rows(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def _question(row: list[str]) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0]}{options}\nAnswer:"
