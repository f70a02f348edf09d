"""The demo's client against a real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from headwatch.demo.corpus import load_corpus
from headwatch.demo.processes import free_ports
from headwatch.demo.prompts import PHASES, plan_requests
from headwatch.demo.traffic import send_requests
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(BaseHTTPRequestHandler):
    """Answers a chat with the last line of its prompt, and refuses what the server was told to refuse."""

    def do_POST(self) -> None:
        server = self.server
        with server.lock:
            server.running += 1
            server.most = max(server.most, server.running)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"].splitlines()[-1]
        time.sleep(0.02)
        code, answer = (200, {"choices": [{"message": {"content": question}}]})
        if server.refused in question:
            code, answer = 400, {"error": {"message": "prompt too long"}}
        payload = json.dumps(answer).encode()
        with server.lock:
            server.running -= 1
        self.send_response(code)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    echo = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    echo.lock, echo.running, echo.most, echo.refused = threading.Lock(), 0, 0, "nothing is refused"
    thread = threading.Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield echo
    echo.shutdown()
    echo.server_close()
    thread.join()


@pytest.fixture(scope="module")
def requests():
    return plan_requests(load_corpus(), {"healthy": PHASES["healthy"]}, len)["healthy"]


def test_every_request_is_answered_a_few_at_a_time(server: ThreadingHTTPServer, requests):
    """All answers come back to their requests, and no more than the given number is under way at once."""
    answers: dict[str, str] = {}
    send_requests(f"http://127.0.0.1:{server.server_port}", "m", requests,
                  lambda request, text: answers.__setitem__(request.question.text, text), concurrency=3)
    assert answers == {item.question.text: f"Question: {item.question.text}" for item in requests}
    assert 2 <= server.most <= 3


def test_refused_request_ends_the_phase_with_its_reason(server: ThreadingHTTPServer, requests):
    """The user reads what vLLM said, and about which question."""
    server.refused = requests[5].question.text
    with pytest.raises(CommandError, match="vLLM answered 400") as caught:
        send_requests(f"http://127.0.0.1:{server.server_port}", "m", requests)
    assert "prompt too long" in str(caught.value)
    assert requests[5].question.text in str(caught.value)


def test_unreachable_server_is_one_clear_line(requests):
    """Nobody listens: the address is named."""
    port = free_ports(1)[0]
    with pytest.raises(CommandError, match=f"cannot be reached at http://127.0.0.1:{port}"):
        send_requests(f"http://127.0.0.1:{port}", "m", requests)
