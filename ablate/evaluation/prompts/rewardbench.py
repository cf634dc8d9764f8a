"""Prompts of RewardBench for generative judges: both responses in one question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.catalogs.judges import find_template
from ablate.data.records import draw
from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item
from ablate.models.chat import Message
from ablate.rewards.judge import filled
from ablate.rewards.rewardbench import pairs


def judged(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """One item a pair; which response is shown as assistant A is drawn by ``options.seed`` and the pair's id.

    Raises ``DataError`` for a prompt of several turns: the question has room for one.
    """
    template = find_template("rewardbench")
    items = []
    for pair in pairs(source, {}):
        if len(pair.prompt) != 1:
            raise DataError(
                f"pair {pair.id}: a judge is asked about prompts of one turn, this one has {len(pair.prompt)}",
                hint="leave the prior sets out of data.hub",
            )
        first = draw(options["seed"], "order", pair.id) % 2 == 0
        one, other = (pair.chosen, pair.rejected) if first else (pair.rejected, pair.chosen)
        fields = {"prompt": pair.prompt[0]["content"], "response_a": one, "response_b": other}
        items.append(
            Item(
                pair.id,
                pair.subset,
                (
                    Message(role="system", content=template.system),
                    Message(role="user", content=filled(template.user, fields)),
                ),
                data={**pair.facts(), "better": "A" if first else "B", "question": fields["prompt"]},
                source=pair.source,
            )
        )
    return items
