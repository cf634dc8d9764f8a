"""A server on this machine that answers about one repository as the hub and GitHub do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import huggingface_hub.constants
import pytest

from ablate.data.hosts import GitHub, Host, HuggingFace

REVISION, OLDER = "6e87e7ba11eeb2a21db459cf13267f62d1feea23", "6e87ffff" + "0" * 32
REPOSITORY = "allenai/tulu-2.5-preference-data"


@dataclass
class Hub:
    """A repository as the hub (or GitHub) answers about it, and what was asked of it."""

    files: dict[str, bytes]
    stored_apart: set[str] = field(default_factory=set)
    """Files in large file storage: listed with their sha256, answered by a redirect."""
    commits: list[str] = field(default_factory=lambda: [REVISION, OLDER])
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Address to the status and error code it is answered with."""
    cut_after: int | None = None
    """Bytes after which the next download's connection ends."""
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def hosts(self) -> dict[str, Host]:
        """Both hosts, at this server."""
        github = GitHub(self.url, f"{self.url}/raw", f"{self.url}/media")
        return {"huggingface": HuggingFace(self.url), "github": github}

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``ablate data`` with this server in the hub's place."""
        settings = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.url, **environment}
        line = [sys.executable, "-m", "ablate", "data", *arguments]
        return subprocess.run(line, env=settings, capture_output=True, text=True, timeout=60, check=False)

    def asked(self, method: str = "GET") -> list[str]:
        return [line.removeprefix(f"{method} ") for line in self.requests if line.startswith(method)]

    def siblings(self) -> list[dict[str, Any]]:
        found = []
        for name, content in self.files.items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob(content)}
            if name in self.stored_apart:
                sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            found.append(sibling)
        return found

    def tree(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"path": "data", "type": "tree", "sha": "0" * 40}]
        for name, content in self.files.items():
            content = pointer(content) if name in self.stored_apart else content
            found.append({"path": name, "type": "blob", "size": len(content), "sha": blob(content)})
        return found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def pointer(content: bytes) -> bytes:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
    return text.encode()


class Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"GET {self.path}")
        if path in self.hub.refuse:
            status, code = self.hub.refuse[path]
            self.answer(status, b"{}", {"X-Error-Code": code} if code else {})
        elif path.startswith("/api/datasets/"):
            self.interface(path.removeprefix("/api/datasets/"))
        elif path.startswith("/repos/"):
            self.github(path)
        else:
            self.content(path)

    def interface(self, path: str) -> None:
        repository, _, rest = path.partition("/revision/")
        if path == f"{REPOSITORY}/commits/main":
            commits = [
                {"id": sha, "authors": [], "date": "2024-06-11T00:00:00.000Z", "title": "", "message": ""}
                for sha in self.hub.commits
            ]
            self.answer(200, json.dumps(commits).encode())
        elif repository != REPOSITORY:
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif rest not in (*self.hub.commits, "main"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            sha = self.hub.commits[0] if rest == "main" else rest
            self.answer(200, json.dumps({"id": REPOSITORY, "sha": sha, "siblings": self.hub.siblings()}).encode())

    def github(self, path: str) -> None:
        *_, kind, revision = path.split("/")
        if kind == "commits":
            self.answer(200, json.dumps({"sha": self.hub.commits[0]}).encode())
        else:
            self.answer(200, json.dumps({"sha": revision, "truncated": False, "tree": self.hub.tree()}).encode())

    def content(self, path: str) -> None:
        """Files of the hub (``resolve``, and ``cdn`` where redirects go), and of GitHub (``raw``, ``media``)."""
        place, _, rest = path[1:].partition("/")
        prefix = f"{REPOSITORY}/resolve/{REVISION}/" if place in ("datasets", "cdn") else f"{REPOSITORY}/{REVISION}/"
        name = rest.removeprefix(prefix)
        if name not in self.hub.files:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif place == "datasets" and name in self.hub.stored_apart:
            self.answer(302, b"", {"Location": f"/cdn/{rest}", "X-Linked-Etag": sha256(self.hub.files[name])})
        else:
            body = self.hub.files[name]
            self.body(pointer(body) if place == "raw" and name in self.hub.stored_apart else body)

    def body(self, content: bytes) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.hub.ranges += [asked] if asked else []
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        self.answer(206 if asked else 200, content[start:], headers, self.hub.cut_after)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": REVISION, "ETag": '"e"', **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.hub.cut_after = None
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    rows = {
        f"data/{name}-00000-of-00001.jsonl": b'{"chosen": "%b"}\n' % name.encode() * 50
        for name in ("capybara", "nectar", "shp_2")
    }
    made = Hub({".gitattributes": b"*.jsonl lfs\n", "README.md": b"# T\n", **rows}, set(rows))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("These", (Answers,), {"hub": made}))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
