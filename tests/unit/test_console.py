"""The HTTP surface over a real socket: what it answers, what it refuses, and that it tells nothing it should not."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticReader, StaticView
from headwatch.console.view import Reader, SidecarView
from headwatch.errors import CommandError, StoreError

from .sidecars import READER, exporter, health, reporting, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving() as url, httpx.Client(base_url=url) as made:
        yield made


def test_the_static_view_is_a_sidecar_view():
    view: SidecarView = StaticView(health(), reader=READER)
    reader: Reader = StaticReader()
    assert (view.readiness(), reader.counts()) == ([], {})


def test_health_and_readiness(client: httpx.Client):
    assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (200, {"status": "ok"})
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"ready": True, "reasons": []})


def test_a_sidecar_that_is_not_ready_says_why():
    with serving(StaticView(health(), reasons=("no worker has reported yet",))) as url:
        answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["no worker has reported yet"]}


def test_metrics_come_with_the_content_type_of_the_exposition(client: httpx.Client):
    answer = client.get("/metrics")
    assert answer.content == b"headwatch_capture_up 1\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_status_carries_the_whole_health(client: httpx.Client):
    found = client.get("/api/v1/status").json()
    assert found["workers"][0]["status"]["worker"]["instance"] == "engine-1"
    assert found["exporters"]["prometheus"]["up"] is True
    assert found["ingest"] == {"frames": 10, "rows": 12}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("arms", READER.arm_rows),
        ("arms?since_ns=5", READER.arm_rows),
        ("arms?since_ns=6", []),
        ("requests", READER.request_rows),
        ("requests?arm=wrong&route=hr&limit=2", [READER.request_rows[0], READER.request_rows[2]]),
        ("requests?route=other", []),
        ("documents?limit=1000", READER.document_rows),
        ("documents?arm=nobody", []),
        ("counts", READER.row_counts),
        ("evidence", READER.evidence_rows),
        ("evidence?since_ns=5&limit=1", READER.evidence_rows[:1]),
        ("evidence?name=entropy", READER.evidence_rows[1:]),
        ("canaries?prompt=plain", READER.canary_rows),
        ("canaries?prompt=none", []),
        ("deploys?limit=5", READER.deploy_rows),
    ],
)
def test_reads_reach_the_store_with_their_parameters(client: httpx.Client, path: str, expected: Any):
    answer = client.get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()) == (200, expected)


def test_the_history_of_heads_says_what_it_is_of(client: httpx.Client):
    answer = client.get("/api/v1/heads/history?from=0&to=7200&step=600&quantiles=0.1,0.9&layer=1&feature=entropy").json()
    assert answer == {
        "feature": "entropy", "from": 0, "to": 7200, "step": 600, "quantiles": [0.1, 0.9],
        "rows": [{"layer": 1, "head": 0, "mean": 0.7, "step_seconds": 600, "quantiles": [0.1, 0.9]}],
    }  # fmt: skip
    latest = client.get("/api/v1/heads/history").json()
    assert (latest["feature"], latest["to"] - latest["from"], latest["step"]) == ("lookback", 3600, None)
    assert latest["to"] == pytest.approx(time.time(), abs=10)
    assert len(latest["rows"]) == 2


def test_undefined_numbers_are_null_and_never_zero(client: httpx.Client):
    answer = client.get("/api/v1/heads?feature=document_mass").json()
    assert (answer["feature"], answer["mean"]) == ("document_mass", [[0.5, None]])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("requests?limit=0", "from 1 to 1000"),
        ("requests?limit=1001", "from 1 to 1000"),
        ("requests?limit=-5", "from 1 to 1000"),
        ("requests?limit=ten", "limit='ten'"),
        ("requests?limit=", "limit=''"),
        ("requests?limit=%D9%A3", "whole number"),
        ("requests?limit=" + "9" * 5000, "whole number"),
        ("requests?limit=5&limit=6", "more than once"),
        ("requests?lim=5", "unknown parameter 'lim'; known: arm, route, limit"),
        ("requests?arm=" + "a" * 257, "257 characters"),
        ("heads?feature=colour", "known are entropy, max_weight"),
        ("heads?feature=" + "a" * 4000, "known are entropy"),
        ("arms?since_ns=yesterday", "whole number"),
        ("counts?limit=1", "known: none"),
        ("heads/history?from=7200&to=7200", "a range of at most"),
        ("heads/history?from=0&to=40000000", "a range of at most"),
        ("heads/history?from=0&to=86400&step=90", "a multiple of 60"),
        ("heads/history?from=0&to=864000&step=60", "14400 points; at most 1500"),
        ("heads/history?from=0&to=34560000&step=86460", "576000 windows of 60 seconds; give a multiple of 3600 seconds"),
        ("heads/history?from=0&to=1209600&step=5460", "20160 windows of 60 seconds; give a multiple of 600 seconds"),
        ("heads/history?feature=colour", "known are entropy"),
        ("heads/history?quantiles=0.5,high", "numbers from 0 to 1"),
        ("heads/history?quantiles=1.5", "numbers from 0 to 1"),
        ("heads/history?quantiles=nan", "numbers from 0 to 1"),
        ("heads/history?quantiles=0,0,0,0,0,0,0,0,0,0", "at most 9"),
        ("heads/history?layer=65536", "from 0 to 65535"),
        ("heads/history?by=route", "unknown parameter 'by'"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_json_object(client: httpx.Client, path: str, message: str):
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert len(answer.content) < 1000, "a long value is not echoed whole"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/requests"])
def test_nothing_can_be_written(client: httpx.Client, method: str, path: str):
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert "error" in answer.json()
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}


def test_head_answers_without_a_body(client: httpx.Client):
    answer = client.head("/api/v1/counts")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/api/v1/arms", "/nowhere", "/api/v1/requests?limit=x"])
def test_every_answer_carries_the_security_headers(client: httpx.Client, path: str):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_an_unknown_path_is_json(client: httpx.Client):
    answer = client.get("/api/v2/arms")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.example", "[::2]"])
def test_a_name_rebound_to_loopback_is_refused(client: httpx.Client, host: str):
    """A page in the operator's browser cannot read the sidecar through a name of its own."""
    answer = client.get("/api/v1/requests", headers={"Host": host})
    assert answer.status_code == 400
    assert "is not this server's" in answer.json()["error"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9464"])
def test_loopback_names_are_answered(client: httpx.Client, host: str):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_server_on_every_address_answers_under_any_name():
    """It cannot know its names: the operator has said allow_remote, and a proxy or policy decides."""
    server = HttpServer(create_app(StaticView(health()), "0.0.0.0"), "127.0.0.1", 0)
    server.start()
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/healthz", headers={"Host": "sidecar:9464"})
    finally:
        server.stop()
    assert answer.status_code == 200


def test_without_a_store_reads_say_so():
    with serving(StaticView(health())) as url:
        answer = httpx.get(f"{url}/api/v1/arms")
    assert (answer.status_code, answer.json()) == (503, {"error": "the store is off (store.enabled = false)"})


@dataclass(frozen=True)
class Failing(StaticReader):
    """A store that refuses one read and breaks at another."""

    def counts(self) -> dict[str, int]:
        raise StoreError("query on the store failed: disk full")

    def arms(self, since_ns: int = 0) -> list[dict[str, Any]]:
        raise ZeroDivisionError("secret detail")


def test_a_store_that_refuses_is_told_and_a_fault_of_ours_is_not(caplog: pytest.LogCaptureFixture):
    """The traceback is in the log, for the operator; the answer has none of it."""
    with serving(StaticView(health(), reader=Failing())) as url:
        refused, broken = httpx.get(f"{url}/api/v1/counts"), httpx.get(f"{url}/api/v1/arms")
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert (refused.status_code, refused.json()) == (503, {"error": "query on the store failed: disk full"})
    assert broken.status_code == 500
    assert broken.json() == {"error": "internal error; the sidecar's log has the details"}
    assert "secret detail" in caplog.text


def test_the_page_shows_the_pair_and_loads_nothing_from_elsewhere():
    hostile = reporting(up=False, reason="<script>alert(1)</script>")
    state = health(hostile, clickhouse=exporter(up=False, last_error="ExportError: <b>gone</b>"))
    with serving(StaticView(state, reasons=("exporter clickhouse: <b>gone</b>",))) as url:
        page = httpx.get(url).text
    assert "engine-1 / 0" in page
    assert "not ready" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "http://" not in page.replace(url, "")
    assert "https://" not in page


def test_the_page_of_an_empty_sidecar(client: httpx.Client):
    with serving(StaticView(health(), reasons=("no worker has reported yet",))) as url:
        page = httpx.get(url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.count("no worker has reported yet") == 2


def test_a_port_in_use_is_one_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=rf"127\.0\.0\.1:{port}: Address already in use; is another sidecar.*http\.port"):
            HttpServer(create_app(StaticView(health())), "127.0.0.1", port).start()


def test_an_address_of_another_machine_is_one_clear_error():
    with pytest.raises(CommandError, match=r"cannot listen on 192\.0\.2\.1:0"):
        HttpServer(create_app(StaticView(health())), "192.0.2.1", 0).start()


def test_a_stopped_server_frees_its_port_and_can_be_followed_by_another():
    with serving() as url:
        port = int(url.rpartition(":")[2])
        httpx.get(f"{url}/healthz")
    following = HttpServer(create_app(StaticView(health())), "127.0.0.1", port)
    following.start()
    assert httpx.get(f"{url}/healthz").status_code == 200
    following.stop()
    following.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_many_readers_at_once_are_all_answered():
    from concurrent.futures import ThreadPoolExecutor

    with serving() as url, ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: httpx.get(f"{url}/api/v1/requests").status_code, range(64)))
    assert codes == [200] * 64
