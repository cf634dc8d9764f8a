"""Prompts of the suites that our own engine runs: each function turns data into items, in the data's order."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ablate.data.suite_files import Source, tar_members
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user
from ablate.pocket.language import question_text

LETTERS = ("A", "B", "C", "D")


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
        )
        for row in source.rows()
    ]


def gsm8k(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Eight exemplars of Wei et al. (2022) and the question in one user turn, as open-instruct asks it.

    The exemplars are those of lm-eval's ``gsm8k_cot`` with the study's ending "So the answer is N.".
    """
    shots = "".join(f"{shot}\n\n" for shot in gsm8k_exemplars()[: options["shots"]])
    items = []
    for row in source.rows("test"):
        text = f"Answer the following questions.\n\n{shots}Question: {row['question'].strip()}"
        identity = content_id("gsm8k", row["question"])
        plain = f"{text}\nAnswer:"
        items.append(Item(identity, "gsm8k", user(text), prefix="Answer:", plain=plain, data={"answer": row["answer"]}))
    return unique_ids(items)


def gsm8k_exemplars() -> list[str]:
    """``Question: …\\nAnswer: …`` of the eight chain-of-thought exemplars."""
    import lm_eval

    path = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    samples = yaml.safe_load(path.read_text(encoding="utf-8"))["fewshot_config"]["samples"]
    return [
        f"Question: {sample['question']}\nAnswer: {sample['target'].replace('The answer is', 'So the answer is')}"
        for sample in samples
    ]


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
        for row in _csv_rows(text):
            items.append(
                Item(
                    content_id(subject, row),
                    subject,
                    user(head + _question(row)),
                    prefix=options["answer_prefix"],
                    plain=head + _question(row),
                    choices=tuple(f" {letter}" for letter in LETTERS),
                    data={"answer": LETTERS.index(row[5])},
                )
            )
    if not items:
        raise DataError(f"no *_test.csv in {file.path}")
    return unique_ids(items)


def xstest(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """XSTest's prompts verbatim; unsafe ones are those whose type is a contrast. The cluster is the type."""
    items = []
    for row in source.rows("xstest"):
        unsafe = "contrast" in row["type"]
        task = "unsafe" if unsafe else "safe"
        items.append(
            Item(
                content_id("xstest", row["prompt"]),
                task,
                user(row["prompt"]),
                cluster=row["type"],
                data={"unsafe": unsafe},
            )
        )
    return unique_ids(items)


def _subject(member: str) -> str:
    return member.rsplit("/", 1)[-1].rsplit("_", 1)[0]


def _csv_rows(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def _question(row: list[str]) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0]}{options}\nAnswer:"
