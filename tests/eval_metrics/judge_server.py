"""A small OpenAI-compatible server on loopback that answers, delays and fails as a script says."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """Serves chat completions; `script` maps (prediction, how often it was asked before) to what happens.

    A script returns the judge's reply as text, or a dict with one of: `status` (and `headers`, `error`), `sleep`
    (seconds before the reply `text`), `drop` (closes the connection), `body` (raw bytes as answer).
    """

    def __init__(self, script: Callable[[str, int], Any]) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def asked(self, prediction: str) -> int:
        """Count the requests about one prediction."""
        return sum(prediction_of(request) == prediction for request in self.requests)

    def __enter__(self) -> "JudgeServer":
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with judge._lock:
                    num_before = judge.asked(prediction_of(request))
                    judge.requests.append(request)
                    judge.times.append(time.monotonic())
                outcome = judge.script(prediction_of(request), num_before)
                outcome = {"text": outcome} if isinstance(outcome, str) else outcome
                if outcome.get("refuse_schema") and "response_format" in request:
                    outcome = {"status": 400, "error": {"message": "response_format is not supported"}}
                self.answer(outcome)

            def answer(self, outcome: dict[str, Any]) -> None:
                time.sleep(outcome.get("sleep", 0))
                if outcome.get("drop"):
                    self.close_connection = True
                    return
                status = outcome.get("status", 200)
                body = outcome.get("body")
                if body is None:
                    content = completion(outcome["text"]) if status == 200 else {"error": outcome.get("error", {})}
                    body = json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **outcome.get("headers", {})}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):  # the client gave up waiting
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def prediction_of(request: dict[str, Any]) -> str:
    """Return the prediction that a request is about."""
    return json.loads(request["messages"][-1]["content"])["prediction"]


def completion(text: str) -> dict[str, Any]:
    """Wrap a reply as a chat completion that used 100 and 20 tokens."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge-2024-01-01",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
