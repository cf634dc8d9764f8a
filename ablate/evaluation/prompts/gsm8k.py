"""Prompts of GSM8K."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ablate.data.suite_files import Source
from ablate.evaluation.items import Item, content_id, unique_ids, user


def gsm8k(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Eight exemplars of Wei et al. (2022) and the question in one user turn, as open-instruct asks it.

    The exemplars are those of lm-eval's ``gsm8k_cot`` with the study's ending "So the answer is N.".
    """
    shots = "".join(f"{shot}\n\n" for shot in gsm8k_exemplars()[: options["shots"]])
    items = []
    for number, row in enumerate(source.rows("test")):
        text = f"Answer the following questions.\n\n{shots}Question: {row['question'].strip()}"
        identity = content_id("gsm8k", row["question"])
        plain = f"{text}\nAnswer:"
        items.append(
            Item(
                identity,
                "gsm8k",
                user(text),
                prefix="Answer:",
                plain=plain,
                data={"answer": row["answer"]},
                source=str(number),
            )
        )
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
