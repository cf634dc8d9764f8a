"""Prompts that also occur in evaluation sets: overlap of 13-grams, as in GPT-3 (Brown et al. 2020, appendix C).

Words are normalised (:func:`ablate.data.audit.texts.words`). A question of 13 words or more is found where a user's or
system's turn has 13 of its words in a row. A question of 8 to 12 words is found where a turn has all of it in a row
(8 is the shortest n-gram of GPT-3's filter), a shorter one where a whole turn is that question and nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.data.audit.findings import Bars, Finding, Share, Table, not_checked
from ablate.data.audit.items import Audited
from ablate.data.audit.texts import excerpt, ngrams, words

LONG, SHORT = 13, 8
_MANY = 10  # examples


@dataclass(frozen=True, slots=True)
class Question:
    """What one example of a suite asks, in one or more forms (with and without options)."""

    id: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of one evaluation set; ``suites`` are the names of those that ask them."""

    suites: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def name(self) -> str:
        """The suites' names, the first three of many."""
        more = f" and {len(self.suites) - 3} more" if len(self.suites) > 3 else ""
        return ", ".join(self.suites[:3]) + more


@dataclass(frozen=True, slots=True)
class Against:
    """What a set is compared with, and the suites that could not be read, with the reason."""

    exams: tuple[Exam, ...]
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A question by the places of its exam and itself."""

    exam: int
    question: int


class _Index:
    """The questions by their runs of words."""

    def __init__(self, exams: Sequence[Exam]) -> None:
        self._long: dict[str, tuple[_Place, ...]] = defaultdict(tuple)
        self._short: dict[str, list[tuple[list[str], _Place]]] = defaultdict(list)
        self._whole: dict[str, list[_Place]] = defaultdict(list)
        self.grams: dict[_Place, int] = {}
        """Distinct 13-grams of every question that has some."""
        for number, exam in enumerate(exams):
            for position, question in enumerate(exam.questions):
                self._enter(question, _Place(number, position))

    def _enter(self, question: Question, place: _Place) -> None:
        runs: set[str] = set()
        for text in question.texts:
            tokens = words(text)
            runs.update(ngrams(tokens, LONG))
            if SHORT <= len(tokens) < LONG:
                self._short[" ".join(tokens[:SHORT])].append((tokens, place))
            elif tokens and len(tokens) < SHORT:
                self._whole[" ".join(tokens)].append(place)
        for run in sorted(runs):
            self._long[run] += (place,)
        if runs:
            self.grams[place] = len(runs)

    def find(self, tokens: list[str]) -> Iterator[tuple[_Place, str]]:
        """Yield every question that is in a turn with the run of words that it shares."""
        if len(tokens) < SHORT:
            whole = " ".join(tokens)
            yield from ((place, whole) for place in self._whole.get(whole, ()))
            return
        for start, run in enumerate(ngrams(tokens, SHORT)):
            for question, place in self._short.get(run, ()):
                if tokens[start : start + len(question)] == question:
                    yield place, " ".join(question)
        for run in ngrams(tokens, LONG):
            yield from ((place, run) for place in self._long.get(run, ()))


class Overlap:
    """Which questions of evaluation sets are in which prompts."""

    def __init__(self, against: Against | None) -> None:
        self._against = against
        self._exams = against.exams if against else ()
        self._index = _Index(self._exams)
        self._prompts = 0
        self._touched: Counter[int] = Counter()
        self._best: dict[_Place, float] = {}
        self._times: Counter[_Place] = Counter()
        self._examples: dict[_Place, str] = {}

    def add(self, item: Audited) -> None:
        """Look for questions in the user's and system's turns of a prompt."""
        self._prompts += 1
        if not self._exams:
            return
        shared: dict[_Place, set[str]] = defaultdict(set)
        for turn in item.prompt:
            if turn["role"] != "assistant":
                for place, run in self._index.find(words(turn["content"])):
                    shared[place].add(run)
        for place, runs in shared.items():
            covered = self._covered(place, runs)
            self._times[place] += 1
            if covered > self._best.get(place, 0.0):
                self._best[place] = covered
                self._examples[place] = f"row {item.row}: “{excerpt(max(runs, key=len), 120)}”"
        self._touched.update({place.exam for place in shared})

    def _covered(self, place: _Place, runs: set[str]) -> float:
        """Return the share of a question's 13-grams that are shared; 1 for a question found as a whole."""
        total = self._index.grams.get(place)
        long = sum(run.count(" ") == LONG - 1 for run in runs)
        return long / total if total and long == len(runs) else 1.0

    def finding(self) -> Finding:
        """Return found questions and touched prompts for every evaluation set."""
        check, title = "evaluation-overlap", "Prompts that are in evaluation sets"
        rule = "look: any question of an evaluation set is in a prompt"
        if self._against is None:
            why = f"no suite was named: --against SUITE or all ({self._prompts:,} prompts)"
            return not_checked(check, title, rule, why)
        missing = self._against.missing
        if not self._exams:
            return not_checked(check, title, rule, f"no suite could be read: {'; '.join(missing.values())}")
        results = [self._result(number) for number in range(len(self._exams))]
        total = Share(len(self._best), sum(result.found.total for result in results))
        left = f"; {len(missing)} suites could not be read" if missing else ""
        tables = [_table(results)]
        if missing:
            tables.append(Table("Suites that could not be read", ("suite", "why"), tuple(sorted(missing.items()))))
        return Finding(
            check,
            title,
            f"{total} questions of {len(results)} evaluation sets are in a prompt ({self._prompts:,} prompts){left}",
            rule,
            tuple(
                f"{one.exam.name}: {one.found} questions are in {one.prompts} prompts"
                for one in results
                if one.found.count
            ),
            numbers={
                "prompts": self._prompts,
                "ngram": LONG,
                "shortest_ngram": SHORT,
                "sets": [result.as_json() for result in results],
                "missing": missing,
            },
            tables=tuple(tables),
            drawings=(_bars(results),),
            examples=tuple(self._shown()),
        )

    def _result(self, number: int) -> _Result:
        exam = self._exams[number]
        covered = [share for place, share in self._best.items() if place.exam == number]
        half = sum(share >= 0.5 for share in covered)
        asked = len(exam.questions)
        return _Result(
            exam, Share(len(covered), asked), Share(half, asked), Share(self._touched[number], self._prompts)
        )

    def _shown(self) -> Iterator[str]:
        """Yield the questions found most completely and most often, at most a few of each set."""
        for number, exam in enumerate(self._exams):
            found = [place for place in self._best if place.exam == number]
            found.sort(key=lambda place: (-self._best[place], -self._times[place], place.question))
            for place in found[: max(2, _MANY // len(self._exams))]:
                question = excerpt(exam.questions[place.question].texts[0], 100)
                how = f"{100 * self._best[place]:.0f} %, prompts: {self._times[place]}"
                yield f"{exam.suites[0]} “{question}” ({how}), {self._examples[place]}"


@dataclass(frozen=True, slots=True)
class _Result:
    """What was found of one exam; ``half`` are the questions of which half the 13-grams or more are in one prompt."""

    exam: Exam
    found: Share
    half: Share
    prompts: Share

    def as_json(self) -> dict[str, Any]:
        shares = {"questions": self.found, "half_or_more": self.half, "prompts": self.prompts}
        return {"suites": list(self.exam.suites), **{name: share.as_json() for name, share in shares.items()}}


def _table(results: Sequence[_Result]) -> Table:
    columns = ("evaluation set", "questions found", "half of their 13-grams or more", "prompts with one")
    rows = tuple((result.exam.name, result.found, result.half, result.prompts) for result in results)
    return Table("By evaluation set", columns, rows)


def _bars(results: Sequence[_Result]) -> Bars:
    names = (result.exam.suites for result in results)
    labels = tuple(suites[0] if len(suites) == 1 else f"{suites[0]} and {len(suites) - 1} more" for suites in names)
    shares = tuple(100 * (result.found.value or 0.0) for result in results)
    return Bars("Questions that are in a prompt", "% of the questions", labels, {"found": shares})
