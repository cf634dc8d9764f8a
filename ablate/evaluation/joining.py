"""Which example of a suite each row of a file of outputs is about: by id, else by prompt, else by order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ablate.errors import DataError
from ablate.evaluation.formats.rows import TASKS
from ablate.evaluation.formats.submission import Output, Submission

SHOWN = 5
"""Ids that an error lists."""


class Target(Protocol):
    """An item or pair of a suite."""

    @property
    def id(self) -> str:
        """The suite's own name for it."""

    @property
    def source(self) -> str:
        """The published data's."""


@dataclass(frozen=True)
class Joined:
    """The rows of each example of a suite that has any, in the suite's order, and how they were found."""

    outputs: Mapping[str, tuple[Output, ...]]
    by: Literal["id", "prompt", "order"]
    left_out: int = 0
    """Rows about examples of the suite's data that are not in the suite's draw."""


def join(
    submission: Submission,
    asked: Sequence[Target],
    whole: Sequence[Target],
    texts: Callable[[Any], Sequence[str]],
    *,
    by_order: bool,
    partial: bool,
    repeated: bool,
    marks: Sequence[str],
) -> Joined:
    """Find the rows of each of the ``asked`` examples.

    ``whole`` are all examples of the suite's data, of which ``asked`` may be a draw: rows about others of them are left
    out. ``texts`` gives what an example asks. ``repeated``: several rows of one example are its samples; else it may
    have only rows that the columns ``marks`` tell apart. Raises ``DataError`` for examples without a row (unless
    ``partial``), rows about nothing that the suite has, two rows about one example, and a row whose id and prompt name
    two examples.
    """
    by: Literal["id", "prompt", "order"] = "order"
    if by_order:
        targets = _by_order(submission, asked, whole)
    else:
        by, targets = _by_name(submission, whole, texts)
    wanted = {target.id for target in asked}
    found: dict[str, list[Output]] = defaultdict(list)
    for output, target in zip(submission.outputs, targets, strict=True):
        found[target.id].append(output)
    if not repeated:
        _refuse_duplicates(submission, found, marks)
    absent = [target for target in asked if target.id not in found]
    if absent and not (partial and len(absent) < len(asked)):
        partly = "" if len(absent) == len(asked) else "; --partial grades the ones that are there"
        raise DataError(
            f"{submission.path} has no outputs for {len(absent)} of {len(asked)} examples: {_listed(absent)}",
            hint=f"give a row for every example{partly}",
        )
    left_out = sum(len(rows) for name, rows in found.items() if name not in wanted)
    return Joined({target.id: tuple(found[target.id]) for target in asked if target.id in found}, by, left_out)


def _by_order(submission: Submission, asked: Sequence[Target], whole: Sequence[Target]) -> Sequence[Target]:
    """The examples themselves: the first row is about the first of them, and so on."""
    outputs = submission.outputs
    if len(outputs) != len(asked):
        raise DataError(
            f"{submission.path} has {len(outputs)} rows, and the suite {len(asked)} examples",
            hint="--by-order needs a row for every example, in the order of the suite's data",
        )
    known = _by_id(whole)
    for output, target in zip(outputs, asked, strict=True):
        named = known.get(output.source or "")
        if named is not None and named.id != target.id:
            raise DataError(
                f"{submission.path}, row {output.row} has the id {output.source}; by order it would be {target.source}",
                hint="leave --by-order out: rows with ids are joined by them",
            )
    return asked


def _by_name(
    submission: Submission, whole: Sequence[Target], texts: Callable[[Any], Sequence[str]]
) -> tuple[Literal["id", "prompt"], list[Target]]:
    """The example of each row, by ids where they are the suite's, else by prompts."""
    asking = _by_text(whole, texts)
    named = _named(submission.outputs, _by_id(whole))
    if any(target is not None for target in named):
        if absent := [output for output, target in zip(submission.outputs, named, strict=True) if target is None]:
            raise DataError(
                f"{submission.path} has outputs for {len(absent)} examples that the suite does not have: "
                f"{_listed_outputs(absent)}",
                hint=f"ids of this suite: {_listed(whole)}{_off_by_one(submission, whole)}",
            )
        _refuse_contradictions(submission, named, asking)
        return "id", [target for target in named if target is not None]
    prompts = [output for output in submission.outputs if output.prompt is not None]
    if not prompts or not any(_plain(output.prompt) in asking for output in prompts):
        raise _nothing_to_join_by(submission, whole)
    return "prompt", _by_prompt(submission, asking, texts)


def _by_id(whole: Sequence[Target]) -> dict[str, Target]:
    """Examples by the published id and by the suite's own."""
    return {target.id: target for target in whole} | {target.source: target for target in whole if target.source}


def _by_text(whole: Sequence[Target], texts: Callable[[Any], Sequence[str]]) -> dict[str, list[Target]]:
    found: dict[str, list[Target]] = defaultdict(list)
    for target in whole:
        for text in dict.fromkeys(_plain(text) for text in texts(target)):
            found[text].append(target)
    return found


def _named(outputs: Sequence[Output], known: Mapping[str, Target]) -> list[Target | None]:
    """The example that each row's id names, in the spelling that names one for most rows.

    Ids may stand below a task that another column names ("task/number"), or behind one prefix that all have ("v2-7").
    """
    spellings: list[list[str]] = [[output.source or "" for output in outputs]]
    for column in TASKS:
        if all(column in output.facts for output in outputs):
            spellings.append([f"{output.facts[column]}/{output.source}" for output in outputs])
    numbered = [re.fullmatch(r"(.*?)(\d+)", output.source or "") for output in outputs]
    if len({match and match[1] for match in numbered}) == 1 and numbered[0]:
        spellings.append([str(int(match[2])) for match in numbered if match])
    best = max(spellings, key=lambda names: sum(name in known for name in names))
    return [known.get(name) for name in best]


def _by_prompt(
    submission: Submission, asking: Mapping[str, Sequence[Target]], texts: Callable[[Any], Sequence[str]]
) -> list[Target]:
    """The example that each row's prompt asks; of several that ask the same, each row takes the next one."""
    taken: dict[str, int] = defaultdict(int)
    targets, unknown = [], []
    for output in submission.outputs:
        text = _plain(output.prompt)
        same = asking.get(text, ())
        if not same:
            unknown.append(output)
            continue
        if len(same) > 1 and len({_plain(texts(one)[-1]) for one in same}) > 1:
            raise DataError(
                f"{submission.path}, row {output.row}: {len(same)} examples of the suite ask {text[:80]!r}",
                hint=f"give ids ({_listed(same)}), or prompts with all that is asked",
            )
        targets.append(same[taken[text] % len(same)])
        taken[text] += 1
    if unknown:
        raise DataError(
            f"{submission.path}: the prompts of {len(unknown)} rows are none of the suite's: "
            f"row {unknown[0].row}, {(unknown[0].prompt or '')[:80]!r}",
            hint="the suite's data may be another version of the set",
        )
    return targets


def _refuse_contradictions(
    submission: Submission, named: Sequence[Target | None], asking: Mapping[str, Sequence[Target]]
) -> None:
    for output, target in zip(submission.outputs, named, strict=True):
        same = asking.get(_plain(output.prompt), ()) if output.prompt is not None else ()
        if same and target is not None and all(other.id != target.id for other in same):
            raise DataError(
                f"{submission.path}, row {output.row} has the id {output.source}, "
                f"but its prompt is that of {same[0].source}",
                hint="number the rows as the suite's data do, or leave the ids out: prompts are enough",
            )


def _refuse_duplicates(submission: Submission, found: Mapping[str, Sequence[Output]], marks: Sequence[str]) -> None:
    twice = [pair for rows in found.values() if (pair := _duplicates(rows, marks)) is not None]
    if twice:
        first = twice[0]
        raise DataError(
            f"{submission.path} has several rows for {len(twice)} examples: {first[0].source or first[0].prompt!r} "
            f"is in rows {first[0].row} and {first[1].row}",
            hint=f"give one row an example, or columns that tell its rows apart: {', '.join(marks)}",
        )


def _duplicates(rows: Sequence[Output], marks: Sequence[str]) -> tuple[Output, Output] | None:
    """Two rows of one example that the columns ``marks`` do not tell apart: one that has none of them may be any."""
    said = [tuple(output.facts.get(name) for name in marks) for output in rows]
    if len(rows) > 1 and (None,) * len(marks) in said:
        return rows[0], rows[1]
    seen: dict[str, Output] = {}
    for output, mark in zip(rows, said, strict=True):
        other = seen.setdefault(str(mark), output)
        if other is not output:
            return other, output
    return None


def _nothing_to_join_by(submission: Submission, whole: Sequence[Target]) -> DataError:
    named = [output.source for output in submission.outputs if output.source is not None]
    found = f"its ids ({', '.join(named[:SHOWN])}, …) are none of the suite's" if named else "it has no column of ids"
    return DataError(
        f"{submission.path}: {found}, and no prompt of the suite is in it",
        hint=f"ids of this suite: {_listed(whole)}; where rows have neither, --by-order takes the suite's "
        "order (--id names a column of ids that is called otherwise)",
    )


def _off_by_one(submission: Submission, whole: Sequence[Target]) -> str:
    counted = {output.source for output in submission.outputs} == {str(n) for n in range(1, len(whole) + 1)}
    return "; the file counts from 1, the suite from 0" if counted else ""


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _listed(targets: Sequence[Target]) -> str:
    return ", ".join(target.source or target.id for target in targets[:SHOWN]) + (", …" if len(targets) > SHOWN else "")


def _listed_outputs(outputs: Sequence[Output]) -> str:
    names = [output.source if output.source is not None else f"row {output.row}" for output in outputs[:SHOWN]]
    return ", ".join(names) + (", …" if len(outputs) > SHOWN else "")
