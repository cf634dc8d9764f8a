"""The pairs that an online run has learnt from, kept as rows of a set that a later run can replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.records import digest
from ablate.models.chat import Messages
from ablate.training.rollouts import Episode

FILE = "pairs.jsonl"


@dataclass(frozen=True)
class OnlinePair:
    """Two responses to one prompt, the preferred one first, and the scores that say so."""

    chosen: Episode
    rejected: Episode
    chosen_score: float
    rejected_score: float

    @property
    def margin(self) -> float:
        """How far the scores are apart."""
        return self.chosen_score - self.rejected_score

    @property
    def finished(self) -> bool:
        """Whether both responses ended with an EOS."""
        return self.chosen.finished and self.rejected.finished


@dataclass(frozen=True)
class PairLog:
    """Pairs in the order in which they were learnt from.

    ``prompts`` are the messages of each prompt by its id, ``decode`` turns a response's ids into text without special
    tokens, and ``source`` is the method.
    """

    prompts: Mapping[str, Messages]
    decode: Callable[[list[int]], str]
    source: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, pair: OnlinePair, step: int) -> None:
        """Keep a pair that ``step`` learnt from, in the form of a set's pairs.

        ``finished`` says whether both responses ended with an EOS: text alone does not tell.
        """
        value = {
            "prompt": list(self.prompts[pair.chosen.prompt_id]),
            "chosen": [self._message(pair.chosen)],
            "rejected": [self._message(pair.rejected)],
            "margin": pair.margin,
            "chosen_score": pair.chosen_score,
            "rejected_score": pair.rejected_score,
            "source": self.source,
        }
        self.rows.append({"id": digest("pair", value), **value, "step": step, "finished": pair.finished})

    def save(self, folder: Path) -> None:
        """Write the rows, into a checkpoint or a stage's output."""
        write_json_lines(folder / FILE, self.rows)

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        self.rows[:] = read_json_lines(folder / FILE)

    def _message(self, episode: Episode) -> dict[str, str]:
        return {"role": "assistant", "content": self.decode(episode.response_ids).strip()}
