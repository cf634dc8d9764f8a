"""A closed model behind an API as a reward: an OpenAI-compatible chat endpoint that is asked for a number.

Answers are cached by content, so that a stage that is run again pays for nothing twice. The key is read from an
environment variable when it is needed: it is in no config, no cache and no message.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ablate.catalogs.pipelines import ApiLabels
from ablate.context import read_json, write_json
from ablate.errors import DataError, StageError
from ablate.models.chat import Messages

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same question may be answered."""


LONGEST_WAIT = 120.0
"""Seconds that an API's Retry-After is honoured for at most."""
_JITTER = random.SystemRandom()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key must not reach another host."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Return nothing, so that a redirect is the error that its status says."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class Endpoint:
    """Where an API is and how it is called, none of which changes what a model answers.

    ``url`` is the address that ``/chat/completions`` stands behind; ``key`` names an environment variable, empty for
    none. ``pause`` is the wait in seconds after the first failure, doubled after each further one.
    """

    url: str
    key: str = ""
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    parallel: int = 8

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request; raises StageError when it is refused, or fails after all attempts."""
        for attempt in range(self.attempts):
            try:
                with _OPENER.open(self._request(body), timeout=self.timeout) as reply:
                    answer: dict[str, Any] = json.load(reply)
                return answer
            except urllib.error.HTTPError as error:
                said = f"status {error.code}: {error.read(500).decode('utf-8', 'replace')}"
                wait = _seconds(error.headers.get("Retry-After"))
                if error.code not in RETRIED:
                    break
            except (OSError, HTTPException, ValueError) as error:  # no connection, a torn answer, no JSON
                said, wait = f"{type(error).__name__}: {error}", 0.0
            if attempt + 1 < self.attempts:
                time.sleep(max(wait, self.pause * 2**attempt * _JITTER.uniform(0.5, 1.0)))
        raise StageError(
            f"{self.url} gave no answer: {self._without_key(said)}",
            hint="answers so far are kept: run again to go on with the rest",
        )

    def key_value(self) -> str:
        """Return the key, empty where there is none."""
        return os.environ.get(self.key, "") if self.key else ""

    def _request(self, body: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if key := self.key_value():
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")

    def _without_key(self, text: str) -> str:
        key = self.key_value()
        return text.replace(key, "***") if key else text


@dataclass(frozen=True)
class AnswerCache:
    """Answers by the digest of what was asked, one file each; ``earlier`` folders are read and never written."""

    folder: Path
    earlier: tuple[Path, ...] = ()

    def find(self, digest: str) -> dict[str, Any] | None:
        """Return a stored answer."""
        for folder in (self.folder, *self.earlier):
            path = folder / digest[:2] / f"{digest}.json"
            if path.is_file():
                stored: dict[str, Any] = read_json(path)
                return stored
        return None

    def keep(self, digest: str, answer: dict[str, Any]) -> None:
        """Store an answer, as a whole."""
        path = self.folder / digest[:2] / f"{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, answer)


class ApiReward:
    """Scores responses by what a model behind an API writes: the last number of its answer.

    An answer without a number in the scale, or cut before it ended, gives no score.
    """

    def __init__(
        self,
        labels: ApiLabels,
        endpoint: Endpoint,
        cache: AnswerCache,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.labels, self.endpoint, self.cache, self.progress = labels, endpoint, cache, progress

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """One number for each response to its prompt; equal questions are asked once."""
        bodies = [self.body(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        digests = [content_digest(body) for body in bodies]
        waiting = {
            digest: body for digest, body in zip(digests, bodies, strict=True) if self.cache.find(digest) is None
        }
        self._ask_all(waiting)
        return [self._number(digest) for digest in digests]

    def body(self, prompt: Messages, response: str) -> dict[str, Any]:
        """Return what is asked about one response: everything that the answer depends on."""
        turns = "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)
        fields = {"prompt": turns, "response": response, "lowest": self.labels.lowest, "highest": self.labels.highest}
        return {
            "model": self.labels.model,
            "messages": [{"role": "user", "content": _filled(self.labels.template, fields)}],
            "temperature": self.labels.temperature,
            "max_tokens": self.labels.max_tokens,
            "seed": self.labels.seed,
        }

    def _ask_all(self, waiting: dict[str, dict[str, Any]]) -> None:
        def ask(item: tuple[str, dict[str, Any]]) -> None:
            digest, body = item
            self.cache.keep(digest, answer_of(self.endpoint.ask(body)))

        if not waiting:
            return
        if self.endpoint.key and not self.endpoint.key_value():
            raise DataError(
                f"the environment variable {self.endpoint.key} is not set: {len(waiting)} questions to "
                f"{self.labels.model} have no stored answer",
                hint=f"export {self.endpoint.key}=… and run again",
            )
        pool = ThreadPoolExecutor(self.endpoint.parallel)
        try:
            self._shown(pool.map(ask, waiting.items()), len(waiting))
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure nothing more is asked

    def _shown(self, answered: Iterable[None], total: int) -> None:
        for done, _ in enumerate(answered, start=1):
            if self.progress:
                self.progress(done, total)

    def _number(self, digest: str) -> float | None:
        answer = self.cache.find(digest)
        assert answer is not None
        return read_number(answer, self.labels.lowest, self.labels.highest)


def _seconds(written: str | None) -> float:
    """Return the seconds of a Retry-After header; a date, which it may also be, counts as none."""
    return min(float(written), LONGEST_WAIT) if written and written.strip().isdecimal() else 0.0


def content_digest(body: dict[str, Any]) -> str:
    """Return the sha256 of a request's canonical JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def answer_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Return text and end of an API's answer; raises StageError for one of another form."""
    try:
        choice = reply["choices"][0]
        return {"text": str(choice["message"]["content"] or ""), "finish": choice.get("finish_reason")}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise StageError(f"the API's answer has no choices[0].message.content: {json.dumps(reply)[:200]}") from error


def read_number(answer: dict[str, Any], lowest: float, highest: float) -> float | None:
    """Return the last number of an answer; null where there is none in the scale, or the answer was cut."""
    found = NUMBER.findall(answer["text"])
    if not found or answer["finish"] == "length":
        return None
    value = float(found[-1])
    return value if lowest <= value <= highest else None


def _filled(template: str, fields: dict[str, Any]) -> str:
    """Return the template with ``{name}`` replaced once: braces in a prompt or a response are left as they are."""
    return re.sub(r"\{(prompt|response|lowest|highest)\}", lambda match: _shown_value(fields[match[1]]), template)


def _shown_value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
