"""A judge: a model that is asked how good a response is, or which of two is better, in the words of a template."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablate.catalogs.judges import Judge, Template, templates
from ablate.context import StageContext, import_function
from ablate.errors import StageError, UsageError
from ablate.models.chat import Messages
from ablate.rewards.api import Account, AnswerCache, Asker, Client, Endpoint, Prices
from ablate.rewards.verdicts import Problem, Verdict, read_answer, winner

Fields = Mapping[str, str]
"""What a template is filled with, by name; of a pair those whose names end in _a and _b are exchanged together."""
OWN_ASKER = "ablate.evaluation.own_judge:open_own_judge"
_TOP_TOKENS = 5


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one question: the mean of its answers that can be read, None where none can.

    ``verdicts`` are all its answers; of a pair they are turned to the response called ``b``, and ``orders`` says which
    response each was shown first. ``is_consistent`` is None unless both orders were asked and read.
    """

    value: float | None
    verdicts: tuple[Verdict, ...]
    texts: tuple[str, ...]
    orders: tuple[str, ...] = ()
    is_consistent: bool | None = None

    @property
    def problem(self) -> Problem | None:
        """Why there is no value."""
        if self.value is not None:
            return None
        return next(verdict.problem for verdict in self.verdicts if verdict.problem is not None)


@dataclass
class JudgeHealth(Account):
    """What may be wrong with a judge's answers, counted as they come, beside what they say of who gave them."""

    problems: Counter[str] = field(default_factory=Counter)

    def see(self, answer: Mapping[str, Any], verdict: Verdict) -> None:
        """Count one answer, and whether it could be read."""
        self.count(answer)
        if verdict.problem is not None:
            self.problems[verdict.problem] += 1

    @property
    def unread(self) -> int:
        """Answers that say nothing."""
        return sum(self.problems.values())

    def as_json(self) -> dict[str, Any]:
        """Return the account of answers, and how many could not be read and why."""
        return {**super().as_json(), "unread": dict(sorted(self.problems.items()))}


class AskedJudge:
    """A judge with its template and whoever answers; equal questions have one answer."""

    def __init__(self, judge: Judge, asker: Asker) -> None:
        self.judge, self.asker = judge, asker
        self.health = JudgeHealth()

    @property
    def template(self) -> Template:
        """Its own words."""
        if self.judge.template is None:
            raise StageError(f"judge {self.judge.name} has no template")
        return self.judge.template

    def report(self) -> dict[str, Any]:
        """Return who judged, how its answers could be read, and what they cost."""
        cost = {"cost": round(self.asker.spent, 6)} if isinstance(self.asker, Client) else {}
        return {"model": self.judge.model, **self.health.as_json(), **cost}

    def rate(self, questions: Sequence[Fields], template: Template | None = None) -> list[Judgement]:
        """How good each response is; ``template`` asks in other words than the judge's own.

        Raises UsageError for a template that shows two responses.
        """
        template = self._asked("single", template)
        found = []
        for verdicts, texts in self._ask(template, questions):
            read = [verdict.value for verdict in verdicts if verdict.value is not None]
            found.append(Judgement(_mean(read), verdicts, texts))
        return found

    def compare(self, pairs: Sequence[Fields], template: Template | None = None) -> list[Judgement]:
        """For each pair of responses a and b the share of a win that b gets: 1, 0, or 0.5 for a tie.

        Where both orders are asked (``positions: swap``) one response wins only if it does in both; shares that a
        format gives as probabilities are averaged. A pair with an answer that can't be read in one of its orders has
        no value. Raises UsageError for a template that shows one response.
        """
        template = self._asked("pairwise", template)
        orders = [self._orders(pair) for pair in pairs]
        shown = [
            _exchanged(pair) if order == "b" else pair for pair, own in zip(pairs, orders, strict=True) for order in own
        ]
        asked = iter(self._ask(template, shown))
        return [self._judgement(template, own, [next(asked) for _ in own]) for own in orders]

    def _asked(self, kind: Literal["single", "pairwise"], template: Template | None) -> Template:
        """Return the words to ask in, which show as many responses as are asked about."""
        template = template or self.template
        if template.kind != kind:
            known = [name for name, own in templates().items() if own.kind == kind]
            what = {"single": "each response is rated by itself", "pairwise": "two responses are compared"}[kind]
            raise UsageError(
                f"judge {self.judge.name}: the template {template.name} is {template.kind}, and {what}",
                hint=f"{kind} templates: {', '.join(known)}",
            )
        return template

    def _judgement(
        self, template: Template, orders: Sequence[str], asked: Sequence[tuple[tuple[Verdict, ...], tuple[str, ...]]]
    ) -> Judgement:
        turned = [
            tuple(verdict.exchanged() if order == "a" else verdict for verdict in verdicts)
            for order, (verdicts, _) in zip(orders, asked, strict=True)
        ]
        means = [_mean([item.value for item in verdicts if item.value is not None]) for verdicts in turned]
        known = [value for value in means if value is not None]
        texts = tuple(text for _, own in asked for text in own)
        names = tuple(order for order, own in zip(orders, turned, strict=True) for _ in own)
        flat = tuple(verdict for own in turned for verdict in own)
        if len(known) < len(means):
            return Judgement(None, flat, texts, names)
        if len(known) == 1:
            return Judgement(known[0], flat, texts, names)
        sides = {winner(value) for value in known}
        value = sum(known) / 2 if template.answer == "token" else (sides.pop() if len(sides) == 1 else 0.5)
        return Judgement(value, flat, texts, names, winner(known[0]) == winner(known[1]))

    def _orders(self, pair: Fields) -> tuple[str, ...]:
        """Return which response is shown first, once for each time that the pair is shown."""
        if self.judge.positions == "swap":
            return ("a", "b")
        if self.judge.positions == "fixed":
            return ("a",)
        key = f"{self.judge.seed}\0{pair.get('prompt', '')}\0{pair.get('id', '')}"
        return ("a",) if hashlib.sha256(key.encode()).digest()[0] % 2 else ("b",)

    def _ask(
        self, template: Template, questions: Sequence[Fields]
    ) -> list[tuple[tuple[Verdict, ...], tuple[str, ...]]]:
        bodies = [self.body(template, fields, sample) for fields in questions for sample in range(self.judge.samples)]
        answers = self.asker.answers(bodies)
        verdicts = [read_answer(template, answer) for answer in answers]
        for answer, verdict in zip(answers, verdicts, strict=True):
            self.health.see(answer, verdict)
        count = self.judge.samples
        return [
            (tuple(verdicts[start : start + count]), tuple(str(row["text"]) for row in answers[start : start + count]))
            for start in range(0, len(answers), count)
        ]

    def body(self, template: Template, fields: Fields, sample: int = 0) -> dict[str, Any]:
        """Return what is asked: everything that the answer depends on; samples of one question differ in their seed."""
        scale = {"lowest": f"{template.lowest:g}", "highest": f"{template.highest:g}"}
        turns = [("system", template.system), ("user", template.user)]
        messages = [{"role": role, "content": filled(text, {**scale, **fields})} for role, text in turns if text]
        body: dict[str, Any] = {
            "model": self.judge.model,
            "messages": messages,
            "temperature": self.judge.temperature,
            "max_tokens": self.judge.max_tokens,
            "seed": self.judge.seed + sample,
        }
        return body | ({"logprobs": True, "top_logprobs": _TOP_TOKENS} if template.answer == "token" else {})


class JudgeReward:
    """A judge of single responses as a reward."""

    def __init__(self, asked: AskedJudge) -> None:
        self.asked = asked

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """One number for each response to its prompt; null where the judge's answers can't be read."""
        pairs = zip(prompts, responses, strict=True)
        questions = [{"prompt": spoken(prompt), "response": response} for prompt, response in pairs]
        return [judgement.value for judgement in self.asked.rate(questions)]


class JudgeOfPairs:
    """A judge of two responses, as rewards compare them."""

    def __init__(self, asked: AskedJudge) -> None:
        self.asked = asked

    def compare(self, prompts: Sequence[Messages], firsts: Sequence[str], seconds: Sequence[str]) -> list[float | None]:
        """Log-odds that the first response is better: infinite for a win, 0 for a tie; null where it can't be read."""
        pairs = [
            {"prompt": spoken(prompt), "response_b": first, "response_a": second}
            for prompt, first, second in zip(prompts, firsts, seconds, strict=True)
        ]
        return [_log_odds(judgement.value) for judgement in self.asked.compare(pairs)]


def open_judge(context: StageContext, judge: Judge) -> AskedJudge:
    """Return a judge with whoever answers: the API that it is behind, or the policy of the stage."""

    def progress(done: int, total: int) -> None:
        context.events.progress(done, total, "answers")

    if judge.is_self:
        own: Asker = import_function(OWN_ASKER, "the policy as its own judge")(context, progress)
        return AskedJudge(judge, own)
    served = context.resources.judges.get(judge.model)
    endpoint = Endpoint(f"{served}/v1", timeout=judge.timeout) if served else None
    client = Client(
        endpoint or Endpoint(judge.url, judge.key, timeout=judge.timeout),
        AnswerCache.of_stage(context),
        prices=Prices(judge.price_in or 0.0, judge.price_out or 0.0, judge.max_cost),
        requests_per_minute=judge.requests_per_minute,
        progress=progress,
    )
    return AskedJudge(judge, client)


def spoken(prompt: Messages) -> str:
    """Return a conversation as judges are shown it: one user turn as it is, several with who said them."""
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)


def filled(template: str, fields: Fields) -> str:
    """Return the template with ``{name}`` replaced once: braces in a prompt or a response are left as they are."""
    names = "|".join(sorted(map(re.escape, fields), key=len, reverse=True))
    return re.sub(rf"\{{({names})\}}", lambda match: fields[match[1]], template)


def _exchanged(pair: Fields) -> dict[str, str]:
    """Return a pair with the two responses in the other order."""
    other = {name: re.sub(r"_(a|b)(?=_|$)", lambda match: "_b" if match[1] == "a" else "_a", name) for name in pair}
    return {other[name]: value for name, value in pair.items()}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _log_odds(share: float | None) -> float | None:
    if share is None:
        return None
    if share in (0.0, 1.0):
        return math.inf if share else -math.inf
    return math.log(share / (1 - share))
