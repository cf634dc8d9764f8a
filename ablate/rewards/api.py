"""A model behind an OpenAI-compatible API: asked at the pace it allows, each question once, within a budget.

Answers are cached by content, so that a stage that is run again pays for nothing twice. The key is read from an
environment variable when it is needed: it is in no config, no cache and no message.
"""

from __future__ import annotations

import datetime
import email.utils
import fcntl
import hashlib
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from ablate.context import StageContext, read_json, write_json
from ablate.errors import DataError, StageError

Body = Mapping[str, Any]
"""What is asked: the JSON of a request, all that its answer depends on: with ``messages`` to chat, with ``prompt``, a
text, to complete."""
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same question may be answered."""


LONGEST_WAIT = 120.0
"""Seconds that an API's Retry-After is honoured for at most."""
NOT_SERVED = "look at the address, which ends before /completions, and at the model's name there"
GO_ON = "answers so far are kept: run again to go on with the rest"
NOT_OFFERED = (
    "look at the address and the model's name; where the model is no longer offered another judge can stand in for it "
    "(evaluate: {judge: …}), by a protocol that is then named so"
)
ANSWERS = "answers"
"""Folder of answers in a stage's work folder."""
_JITTER = random.SystemRandom()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key must not reach another host."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Return nothing, so that a redirect is the error that its status says."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class Endpoint:
    """Where an API is and how it is called, none of which changes what a model answers.

    ``url`` is the address that ``/chat/completions`` and ``/completions`` stand behind; ``key`` names an environment
    variable, empty for none. ``pause`` is the wait in seconds after the first failure, doubled after each further one.
    """

    url: str
    key: str = ""
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    parallel: int = 8

    def ask(self, body: Body) -> dict[str, Any]:
        """Return the answer to one request; raises StageError when it is refused, or fails after all attempts."""
        hint = GO_ON
        for attempt in range(self.attempts):
            try:
                with _OPENER.open(self._request(body), timeout=self.timeout) as reply:
                    answer: dict[str, Any] = json.load(reply)
                return answer
            except urllib.error.HTTPError as error:
                said = f"status {error.code}: {error.read(500).decode('utf-8', 'replace')}"
                wait = _seconds(error.headers.get("Retry-After"))
                if error.code not in RETRIED:
                    if error.code == 404:
                        hint = NOT_OFFERED if "messages" in body else NOT_SERVED
                    break
            except (OSError, HTTPException, ValueError) as error:  # no connection, a torn answer, no JSON
                said, wait = f"{type(error).__name__}: {error}", 0.0
            if attempt + 1 < self.attempts:
                time.sleep(max(wait, self.pause * 2**attempt * _JITTER.uniform(0.5, 1.0)))
        raise StageError(f"{self.url} gave no answer: {self._without_key(said)}", hint=hint)

    def models(self) -> list[str]:
        """Return the names of the models that are served; raises StageError where the server does not say."""
        address = f"{self.url.rstrip('/')}/models"
        try:
            with _OPENER.open(urllib.request.Request(address, headers=self._headers()), timeout=self.timeout) as reply:
                return [str(model["id"]) for model in json.load(reply)["data"]]
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            said = self._without_key(f"{type(error).__name__}: {error}")
            raise StageError(f"{address} does not say which models are served: {said}", hint=NOT_SERVED) from error

    def key_value(self) -> str:
        """Return the key, empty where there is none."""
        return os.environ.get(self.key, "") if self.key else ""

    def _headers(self) -> dict[str, str]:
        key = self.key_value()
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def _request(self, body: Body) -> urllib.request.Request:
        address = f"{self.url.rstrip('/')}/{'chat/' if 'messages' in body else ''}completions"
        return urllib.request.Request(address, json.dumps(dict(body)).encode(), self._headers(), method="POST")

    def _without_key(self, text: str) -> str:
        key = self.key_value()
        return text.replace(key, "***") if key else text


@dataclass(frozen=True)
class AnswerCache:
    """Answers by the digest of what was asked, one file each; ``earlier`` folders are read and never written."""

    folder: Path
    earlier: tuple[Path, ...] = ()

    @classmethod
    def of_stage(cls, context: StageContext) -> AnswerCache:
        """Return the cache that a stage's locations name, which stages share; else one in its work folder.

        Answers of earlier attempts are read from their work folders.
        """
        shared = context.locations.get("answers")
        earlier = tuple(folder / ANSWERS for folder in context.previous_work)
        return cls(Path(shared) if shared else context.work / ANSWERS, earlier)

    def find(self, digest: str) -> dict[str, Any] | None:
        """Return a stored answer."""
        for folder in (self.folder, *self.earlier):
            path = folder / digest[:2] / f"{digest}.json"
            if path.is_file():
                stored: dict[str, Any] = read_json(path)
                return stored
        return None

    def keep(self, digest: str, answer: Mapping[str, Any]) -> None:
        """Store an answer, as a whole."""
        path = self.folder / digest[:2] / f"{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(answer))


@dataclass
class Account:
    """What answers say of the model that gave them: its name at the API, on which days, and how many tokens."""

    answers: int = 0
    served: set[str] = field(default_factory=set)
    days: set[str] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)

    def count(self, answer: Mapping[str, Any]) -> None:
        """Count one answer."""
        self.answers += 1
        self.served.update([answer["served"]] if "served" in answer else [])
        self.days.update([answer["asked"]] if "asked" in answer else [])
        self.tokens.update(answer.get("usage") or {})

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and the first and the last day on which the API answered."""
        days = {"asked_from": min(self.days), "asked_to": max(self.days)} if self.days else {}
        return {
            "answers": self.answers,
            "served": sorted(self.served),
            "tokens": dict(sorted(self.tokens.items())),
            **days,
        }


class Asker(Protocol):
    """Answers questions: a model behind an API, or the policy itself."""

    def answers(self, bodies: Sequence[Body]) -> list[dict[str, Any]]:
        """One answer to each: its ``text``, why it ended (``finish``), and what else is known of it."""
        ...


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens, and how many dollars the answers of a stage may cost."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0
    most: float | None = None

    def of(self, answer: Mapping[str, Any]) -> float | None:
        """Return what an answer cost; None where the API did not say how many tokens it took."""
        usage = answer.get("usage")
        if usage is None:
            return None
        return float(usage["in"] * self.per_million_in + usage["out"] * self.per_million_out) / 1e6


class Client:
    """Asks one API. Equal questions are asked once, answers are kept as they come, and a budget is not gone beyond.

    The budget is that of all answers the questions take, whenever they were given: a stage that is run again within
    the same budget does not spend it twice.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: AnswerCache,
        *,
        prices: Prices | None = None,
        requests_per_minute: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.endpoint, self.cache, self.prices, self.progress = endpoint, cache, prices or Prices(), progress
        self.spent = 0.0
        self._counted: set[str] = set()
        self._lock = threading.Lock()
        self._pace = None if requests_per_minute is None else Pace(self._pace_file(), 60.0 / requests_per_minute)

    def answers(self, bodies: Sequence[Body]) -> list[dict[str, Any]]:
        """One answer to each question; raises StageError where the API or the budget ends it, DataError for no key."""
        digests = [content_digest(body) for body in bodies]
        found: dict[str, dict[str, Any]] = {}
        waiting: dict[str, Body] = {}
        for digest, body in zip(digests, bodies, strict=True):
            if digest in found or digest in waiting:
                continue
            stored = self.cache.find(digest)
            if stored is None:
                waiting[digest] = body
            else:
                found[digest] = stored
                self._count(digest, stored)
        if waiting:
            self._ask_all(waiting, found)
        return [found[digest] for digest in digests]

    def _ask_all(self, waiting: Mapping[str, Body], found: dict[str, dict[str, Any]]) -> None:
        if self.endpoint.key and not self.endpoint.key_value():
            model = next(iter(waiting.values()))["model"]
            raise DataError(
                f"the environment variable {self.endpoint.key} is not set: {len(waiting)} questions to {model} have no "
                "stored answer",
                hint=f"export {self.endpoint.key}=… and run again",
            )
        total = len(found) + len(waiting)

        def ask(item: tuple[str, Body]) -> tuple[str, dict[str, Any]]:
            digest, body = item
            self._require_budget(len(found), total)
            if self._pace is not None:
                self._pace.wait()
            answer = answer_of(self.endpoint.ask(body))
            self.cache.keep(digest, answer)
            self._count(digest, answer)
            return digest, answer

        pool = ThreadPoolExecutor(self.endpoint.parallel)
        try:
            for done, (digest, answer) in enumerate(pool.map(ask, waiting.items()), start=1):
                found[digest] = answer
                if self.progress:
                    self.progress(done, len(waiting))
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure nothing more is asked

    def _count(self, digest: str, answer: Mapping[str, Any]) -> None:
        cost = self.prices.of(answer)
        if cost is None and self.prices.most is not None:
            raise StageError(
                f"{self.endpoint.url} does not say how many tokens an answer took, so max_cost can't be kept",
                hint="leave max_cost out, or ask an API that reports usage; " + GO_ON,
            )
        with self._lock:
            if digest not in self._counted:
                self._counted.add(digest)
                self.spent += cost or 0.0

    def _require_budget(self, done: int, total: int) -> None:
        if self.prices.most is not None and self.spent >= self.prices.most:
            raise StageError(
                f"max_cost of {self.prices.most:g} US dollars is used up ({self.spent:.4g}) after {done} of {total} "
                "answers",
                hint="raise max_cost and run again: answers so far are kept, and only the rest is asked",
            )

    def _pace_file(self) -> Path:
        return self.cache.folder / f"pace-{content_digest({'url': self.endpoint.url})[:16]}"


@dataclass(frozen=True)
class Pace:
    """Holds questions ``interval`` seconds apart, over all threads and processes that share ``file``."""

    file: Path
    interval: float

    def wait(self) -> None:
        """Return when the next question may be asked."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0)
            written, now = handle.read(), time.time()
            last = float(written) if written else 0.0
            # A clock that was set back must not hold everything up: nobody waits longer than all that may be queued.
            turn = now if last > now + LONGEST_WAIT else max(now, last + self.interval)
            handle.truncate(0)
            handle.write(repr(turn))
        time.sleep(max(0.0, turn - time.time()))


def _seconds(written: str | None) -> float:
    """Return the seconds of a Retry-After header, which may also be a date; 0 where it says nothing."""
    if not written:
        return 0.0
    if written.strip().isdecimal():
        return min(float(written), LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(written)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max(moment.timestamp() - time.time(), 0.0), LONGEST_WAIT)


def content_digest(body: Body) -> str:
    """Return the sha256 of a request's canonical JSON."""
    return hashlib.sha256(json.dumps(dict(body), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def answer_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of an API's answer; raises StageError for one of another form.

    ``text`` and ``finish``; where the API says, ``stopped``, the stop string that ended it, ``usage`` in tokens and
    ``served``, the model that answered; ``first``, the likeliest first tokens with their log-probabilities, where they
    were asked for; ``asked``, the day (UTC).
    """
    try:
        choice = reply["choices"][0]
        content = choice["message"]["content"] if "message" in choice else choice["text"]
        answer = {"text": "" if content is None else str(content), "finish": choice.get("finish_reason")}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        said = json.dumps(reply)[:200]
        message = f"the API's answer has no choices[0].message.content and no choices[0].text: {said}"
        raise StageError(message, hint=GO_ON) from error
    if isinstance(choice.get("stop_reason"), str):  # of vLLM, which leaves the string out of the text
        answer["stopped"] = choice["stop_reason"]
    first = _first_tokens(choice.get("logprobs"))
    usage = _usage(reply.get("usage"))
    served = reply.get("model")
    return {
        **answer,
        **({} if first is None else {"first": first}),
        **({} if usage is None else {"usage": usage}),
        **({"served": served} if isinstance(served, str) else {}),
        "asked": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _usage(written: Any) -> dict[str, int] | None:
    if not isinstance(written, Mapping):
        return None
    counts = [written.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return {"in": counts[0], "out": counts[1]}  # type: ignore[dict-item]


def _first_tokens(written: Any) -> list[list[Any]] | None:
    """Return the likeliest first tokens as [token, log-probability]; None where there are none."""
    try:
        found = written["content"][0]["top_logprobs"]
        return [[str(entry["token"]), float(entry["logprob"])] for entry in found]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
