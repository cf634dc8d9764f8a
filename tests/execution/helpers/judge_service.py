"""An OpenAI-compatible API as a service of a job: `python judge_service.py PORT MODEL FOLDER`; not ready at first.

It leaves its process id and that of a child of its own in FOLDER, and answers 9 to every question.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BEGUN = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if time.monotonic() > BEGUN + 1 and self.path == "/health" else 503, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"message": {"content": "9"}, "finish_reason": "stop"}
        is_own = body["model"] == sys.argv[2] and self.headers["Authorization"] is None
        self._answer(200 if is_own else 400, {"choices": [choice], "model": body["model"]})

    def _answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    child = subprocess.Popen(["sleep", "600"])
    (Path(sys.argv[3]) / f"pids-{os.getpid()}").write_text(f"{os.getpid()} {child.pid}")
    print("serving", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
