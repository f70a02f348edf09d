"""With identifiers hashed, none is anywhere as it is: every surface of a whole sidecar is searched for what was planted."""

from __future__ import annotations

import logging
import re
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from headwatch.config import AuditConfig, CanaryConfig, Config, IncidentConfig, OtlpConfig
from headwatch.history.file import History
from headwatch.incident.exhibits import exhibits_of
from headwatch.pipeline import Sidecar
from headwatch.places import HISTORY
from headwatch.wire.columns import view

from ..programs import free_port, wait_for
from ..unit import frames
from ..unit.incidents import SECOND, event, evidence, verdict
from ..unit.paging.receiver import receiving
from .disk_search import files_with
from .planted import OTHERS, PLANTED, THEIRS, config, drift_of, request, state_of, stored_as

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.model import RequestContext

    from ..unit.paging.receiver import Receiver

pytestmark = pytest.mark.store

ZEBRA = "zebra-"
"""What every planted identifier begins with."""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATHS = (
    "arms", "requests", "heads", "heads/history", "documents", "units", "signals", "counts", "evidence", "canaries", "deploys",
    "drift", "incidents", "status", "control", "canary",
)  # fmt: skip


@dataclass
class Surfaces:
    """What was seen, by where."""

    config: Config
    seen: dict[str, str] = field(default_factory=dict)


def settings_of(folder: Path, receiver: Receiver) -> Config:
    """Return a configuration with every surface on."""
    found = config(folder, hashed=True)
    token = folder / "token"
    token.write_text("0123456789abcdef" * 2)
    token.chmod(0o600)
    return msgspec.structs.replace(
        found, http=msgspec.structs.replace(found.http, port=free_port()),
        otlp=OtlpConfig(
            endpoint=f"{receiver.url}/v1/metrics", traces_endpoint=f"{receiver.url}/v1/traces", protocol="http",
        ),
        incident=IncidentConfig(
            route="webhook", webhook_url=f"{receiver.url}/hook", alertmanager_url=receiver.url, grafana_url=receiver.url,
            grafana_token_file=str(token), retry_seconds=0.1,
        ),
        canary=CanaryConfig(endpoint=receiver.url, model="m", interval_seconds=1.0),
        audit=AuditConfig(path=f"{folder}/state/audit.jsonl"),
    )  # fmt: skip


def traced(context: RequestContext, **changes: object) -> RequestContext:
    return msgspec.structs.replace(context, trace_id=TRACE, parent_span_id=PARENT, **changes)


def feed(sidecar: Sidecar) -> None:
    """Have it see requests of both, and one that says it is a canary."""
    contexts = [
        traced(request(THEIRS, theirs=True)), traced(request(OTHERS, theirs=False)),
        traced(request("engine-of-canary", theirs=True), canary="plain"),
    ]  # fmt: skip
    for number, context in enumerate(contexts):
        batch = frames.detailed(3, time_ns=time.time_ns() + number, finished=[context.engine_id])
        batch = msgspec.structs.replace(batch, requests=[context])
        sidecar._consume(batch, view(batch))
    sidecar.tick(everything=True)


def page(sidecar: Sidecar) -> str:
    """Open an incident about what the history holds; return its id."""
    now_ns = time.time_ns()
    since_ns = now_ns - 300 * SECOND
    found = event(time_ns=now_ns, since_ns=since_ns, model="", route="support", evidence=(evidence(since_ns=since_ns),))
    with closing(History.open_readonly(drift_of(sidecar.config) / HISTORY)) as history:
        windows = list(history.read())
    models = {one.model for window in windows for one in window.requests}
    found = msgspec.structs.replace(found, model=models.pop())
    shown = exhibits_of(found, windows)
    assert shown.requests
    assert shown.documents
    desk = sidecar._desk
    assert desk is not None
    opened = desk.book.open(found, verdict(), shown).incident
    desk._pager.poke()
    return opened.id


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surfaces]:
    folder = tmp_path_factory.mktemp("hashed")
    with receiving() as receiver, logged() as log:
        found = Surfaces(settings_of(folder, receiver))
        sidecar = Sidecar(found.config)
        sidecar.start()
        try:
            feed(sidecar)
            incident = page(sidecar)
            sidecar.tick(everything=True)
            with httpx.Client(base_url=f"http://127.0.0.1:{found.config.http.port}", timeout=30.0) as client:
                wait_for(lambda: len(client.get("/api/v1/requests").json()) == 2, "the store to have the requests")
                wait_for(lambda: {"/hook", "/v1/metrics", "/v1/traces"} <= {got.path for got in receiver.received}, "everybody")
                for path in (*PATHS, f"incidents/{incident}", f"incidents/{incident}/effects"):
                    found.seen[f"/api/v1/{path}"] = client.get(f"/api/v1/{path}").text
                for path in ("/", "/metrics", "/readyz"):
                    found.seen[path] = client.get(path).text
                for table in ("headwatch_requests", "headwatch_documents", "headwatch_rows", "headwatch_request_heads"):
                    query = f"SELECT * FROM {table} FORMAT JSONEachRow"
                    found.seen[f"/clickhouse {table}"] = client.post("/clickhouse", content=query).text
        finally:
            sidecar.stop()
        for got in receiver.received:
            where = f"sent to {got.path}"
            found.seen[where] = found.seen.get(where, "") + got.body.decode("latin-1")
        found.seen["log"] = "\n".join(log)
        found.seen["audit"] = (state_of(found.config) / "audit.jsonl").read_text()
        found.seen["requests.jsonl"] = (state_of(found.config) / "requests.jsonl").read_text()
        yield found


@contextmanager
def logged() -> Iterator[list[str]]:
    """Give what is logged at any level by headwatch while the block lasts."""
    lines: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign] # a handler of one line
    logger = logging.getLogger("headwatch")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_no_surface_shows_an_identifier_as_it_is(surfaces: Surfaces) -> None:
    shown = {where: sorted(set(re.findall(ZEBRA + r"[a-z]+-\d+", text))) for where, text in surfaces.seen.items()}
    assert {where: names for where, names in shown.items() if names} == {}


def test_the_search_would_have_found_them(surfaces: Surfaces) -> None:
    """Each surface that says whose something is says it hashed: so it was looked at where it matters."""
    user, tenant, document = (stored_as(surfaces.config, kind) for kind in PLANTED)
    for where, words in {
        "/api/v1/requests": (user, tenant), "/api/v1/documents": (document,), "/api/v1/incidents": (user, tenant, document),
        "/clickhouse headwatch_requests": (user, tenant), "/clickhouse headwatch_documents": (document, tenant),
        "requests.jsonl": (user, tenant, document), "sent to /hook": (document,), "sent to /v1/traces": (document, tenant),
    }.items():
        for word in words:
            assert word in surfaces.seen[where], f"{word} in {where}"
    assert bytes.fromhex(TRACE).decode("latin-1") in surfaces.seen["sent to /v1/metrics"], "an exemplar"
    assert "headwatch_grounding_ratio" in surfaces.seen["/metrics"]
    assert "/api/v1/incidents" in surfaces.seen["audit"]
    assert surfaces.seen["log"]


def test_a_page_says_of_nobody_whose_it_is(surfaces: Surfaces) -> None:
    user, tenant, _ = (stored_as(surfaces.config, kind) for kind in PLANTED)
    for where in ("sent to /hook", "sent to /api/v2/alerts"):
        assert user not in surfaces.seen[where]
        assert tenant not in surfaces.seen[where]


def test_no_file_holds_one(surfaces: Surfaces) -> None:
    for name in PLANTED.values():
        assert files_with(state_of(surfaces.config), name) == []
    assert files_with(state_of(surfaces.config), THEIRS)
