"""The label stage: the responses of records scored anew, by a reward model, a formula, a verifier or a judge."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.catalogs.judges import judges_of_stage
from ablate.catalogs.rewards import find_reward
from ablate.context import StageContext, import_function, write_json
from ablate.data.converters import bind
from ablate.data.converters.native import as_row
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.records import PreferenceRecord, Response
from ablate.errors import StageError
from ablate.rewards.closed_form import closed_form
from ablate.rewards.interface import PairJudge, Reward
from ablate.rewards.judge import AskedJudge, JudgeOfPairs, JudgeReward, open_judge
from ablate.rewards.round_robin import round_robin
from ablate.rewards.stage import open_comparison, open_reward


def run(context: StageContext) -> dict[str, Any]:
    """Write ``records.jsonl``, with new scores and no ranks, and ``report.json``.

    A response the labeller can't read whole is left out, and a record that keeps fewer than two dropped. The report
    says how often old and new labels order two responses of a prompt alike, of the pairs that both order.
    """
    records = read_records(context)
    asked = _asked(context)
    scores = _scores(context, records, asked)
    labelled = [_labelled(record, own) for record, own in zip(records, scores, strict=True)]
    kept = [record for record in labelled if record is not None]
    if not kept:
        said = "" if asked is None else f"; of {asked.health.answers} answers, {_counted(asked.health.problems)}"
        raise StageError(f"no record of {len(records)} has two responses that the labeller could read{said}")
    write_json_lines(context.output / "records.jsonl", map(as_row, kept))
    alike, ordered = agreement(records, scores)
    flat = [score for own in scores for score in own]
    report = {
        "in": len(records),
        "kept": len(kept),
        "dropped": {"fewer-than-two-responses": len(records) - len(kept)},
        "responses": {"in": len(flat), "unscored": sum(score is None for score in flat)},
        "agreement": {"pairs": ordered, "alike": alike, "share": alike / ordered if ordered else None},
        **({} if asked is None else {"judge": asked.report()}),
    }
    write_json(context.output / "report.json", report)
    return report


def agreement(records: Sequence[PreferenceRecord], scores: Sequence[Sequence[float | None]]) -> tuple[int, int]:
    """Return (pairs of responses both labels order alike, pairs both order), over all pairs of a record."""
    alike = ordered = 0
    for record, own in zip(records, scores, strict=True):
        for (one, new_one), (other, new_other) in itertools.combinations(zip(record.responses, own, strict=True), 2):
            old = _preference(one, other)
            if not old or new_one is None or new_other is None or new_one == new_other:
                continue
            ordered += 1
            alike += (old > 0) == (new_one > new_other)
    return alike, ordered


def _preference(one: Response, other: Response) -> float:
    """Return a number above 0 where the source prefers ``one``, 0 where it does not say."""
    if one.rank is not None and other.rank is not None:
        return other.rank - one.rank
    if one.score is not None and other.score is not None:
        return one.score - other.score
    return 0.0


def read_records(context: StageContext) -> list[PreferenceRecord]:
    """Return the input ``records`` in memory; raises StageError where they are of another form."""
    convert = bind("records", {})
    records = [convert("records.jsonl", row) for row in read_json_lines(context.inputs["records"])]
    if not all(isinstance(record, PreferenceRecord) for record in records):
        raise StageError("the records to label are not of this package's own form")
    return [record for record in records if isinstance(record, PreferenceRecord)]


def _scores(
    context: StageContext, records: Sequence[PreferenceRecord], asked: AskedJudge | None
) -> list[list[float | None]]:
    """Return the score of every response of every record; of a judge of pairs it is its share of wins."""
    prompts = [record.prompt for record in records]
    texts = [[response.messages[-1]["content"] for response in record.responses] for record in records]
    name = context.config["closed_form"]
    if name is not None:
        formula = closed_form(name)
        return [[formula(text) for text in own] for own in texts]
    reward = _named(context) if asked is None else JudgeReward(asked)
    pairs: PairJudge | None = None
    if asked is not None:
        pairs = JudgeOfPairs(asked) if asked.template.kind == "pairwise" else None
    elif reward is None:
        pairs = open_comparison(context)
    if pairs is not None:
        _require_single_turns(records)
        return round_robin(pairs, prompts, texts)
    reward = reward or open_reward(context)
    before = [(*record.prompt, *response.messages[:-1]) for record in records for response in record.responses]
    return list(_split(records, reward.score(before, [text for own in texts for text in own])))


def _asked(context: StageContext) -> AskedJudge | None:
    """Return the judge that the config names; else None."""
    if "judge" not in context.config:
        return None
    (judge,) = judges_of_stage([context.config["judge"]], context.locations)
    return open_judge(context, judge)


def _counted(problems: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(problems.items()))


def _named(context: StageContext) -> Reward | None:
    """Return the reward that the config names, which reads ``prompt_texts``; else None."""
    name = context.config.get("reward")
    if name is None:
        return None
    rows = read_json_lines(context.inputs["prompt_texts"])
    open_named = import_function(find_reward(name).entry, f"the reward {name}")
    reward: Reward = open_named(name, rows, context.resources)
    return reward


def _require_single_turns(records: Sequence[PreferenceRecord]) -> None:
    for record in records:
        if any(len(response.messages) > 1 for response in record.responses):
            raise StageError(
                f"row {record.row_id} has a response of several turns, and a model that compares two responses to one "
                "prompt can't read it",
                hint="label this set with a reward model that scores single responses",
            )


def _split(records: Sequence[PreferenceRecord], scores: Sequence[float | None]) -> Iterator[list[float | None]]:
    rest = iter(scores)
    for record in records:
        yield list(itertools.islice(rest, len(record.responses)))


def _labelled(record: PreferenceRecord, scores: Sequence[float | None]) -> PreferenceRecord | None:
    responses = tuple(
        replace(response, score=score, rank=None)
        for response, score in zip(record.responses, scores, strict=True)
        if score is not None
    )
    return replace(record, responses=responses) if len(responses) >= 2 else None
