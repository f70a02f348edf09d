"""Texts through a whole sidecar into a real store: never on the disk as they are, gone in time, seen by whom they should."""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
import zmq

from headwatch.config import (
    ClickHouseConfig,
    ClickHouseUser,
    Config,
    DriftConfig,
    HttpConfig,
    PrivacyConfig,
    RequestsConfig,
    SpoolConfig,
    StoreConfig,
    TextConfig,
    TextRoute,
    WireConfig,
)
from headwatch.model import Document, TextFrame
from headwatch.pipeline import Sidecar
from headwatch.purge.run import purge
from headwatch.text import keeper as keeper_module
from headwatch.text.keys import new_key, reading_keys
from headwatch.text.seal import Belonging, unseal
from headwatch.wire import codec
from headwatch_exporters.clickhouse.columns.texts import text_columns
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.upkeep.check import check

from ..programs import free_port, wait_for
from ..unit.text.texts import KEPT, keeper, text_frame
from .disk_search import files_with, zstd
from .endpoints import serving_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.identifiers import Identifier

pytestmark = pytest.mark.store

SECRET, MAIL = "zebra-secret-77", "zebra-mail-77@example.org"
KEY = new_key()
DAY_NS = 86_400 * 10**9


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATCH_TEXT_KEY", KEY)


def config(folder: Path, url: str = "", **sections: Any) -> Config:
    return Config(
        wire=WireConfig(endpoint=f"ipc://{folder}/frames", control_endpoint=f"ipc://{folder}/control"),
        http=HttpConfig(port=0),
        store=StoreConfig(url=url or f"chdb://{folder}/state/store"),
        spool=SpoolConfig(folder=f"{folder}/state/spool"),
        requests=RequestsConfig(log_path=f"{folder}/state/requests.jsonl"),
        drift=DriftConfig(enabled=False),
        text=sections.pop("text", KEPT),
        **sections,
    )  # fmt: skip


@contextmanager
def running(settings: Config) -> Iterator[Sidecar]:
    made = Sidecar(settings)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def send(settings: Config, *frames: TextFrame) -> None:
    """Send *frames* as a front end would."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(settings.wire.endpoint)
        for frame in frames:
            socket.send(codec.encode(msgspec.structs.replace(frame, time_ns=time.time_ns())))


def keep(settings: Config, *frames: TextFrame) -> None:
    """Have a sidecar keep the texts of *frames*."""
    with running(settings) as sidecar:
        send(settings, *frames)
        wait_for(lambda: sidecar.health().texts["kept"] == len(frames), "the texts to be sealed")


def planted(number: int = 0, **named: Any) -> TextFrame:
    return text_frame(f"{SECRET} asks {MAIL} " * 20, sequence=number, **{"request_id": f"chatcmpl-{number}", **named})


def opened(row: dict[str, Any], settings: Config) -> str:
    belonging = Belonging(row["service"], row["request_id"], row["kind"], int(row["time_ns"]))
    return unseal(row["body"], reading_keys(settings.text, {"HEADWATCH_TEXT_KEY": KEY}), belonging)


def rows(settings: Config) -> list[dict[str, Any]]:
    with closing(connect(settings.store)) as connection:
        return connection.query(
            "SELECT toUnixTimestamp64Nano(time) AS time_ns, unhex(hex(body)) AS raw, hex(body) AS hexed, * EXCEPT (time, body) "
            "FROM headwatch_texts ORDER BY request_id"
        )


def texts(settings: Config) -> list[str]:
    return [opened({**row, "body": bytes.fromhex(row["hexed"])}, settings) for row in rows(settings)]


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("sealed", [True, False])
def test_no_text_is_on_the_disk_in_any_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sealed: bool, away: bool
):
    """Nor in the spool while the store is away.  Compressed and not encrypted it would be found: the search can fail."""
    caplog.set_level(logging.DEBUG)
    if not sealed:
        monkeypatch.setattr(keeper_module, "seal", lambda text, *_: zstd.compress(text.encode()))
    settings = config(tmp_path, f"http://127.0.0.1:{free_port()}/db" if away else "")
    keep(settings, planted())
    state = tmp_path / "state"
    kinds = {path.split("/", 1)[0] for path in files_with(state, "chatcmpl-0")}
    assert kinds == ({"spool"} if away else {"store"}), "the row is there"
    assert bool(files_with(state, SECRET)) is not sealed
    assert files_with(state, MAIL) == []
    assert SECRET not in caplog.text
    if sealed and not away:
        assert texts(settings) == [f"{SECRET} asks [email] " * 20]


def test_what_is_known_of_a_text_stands_beside_it_hashed_where_that_is_wanted(tmp_path: Path):
    documents = [Document("kb-1", labels={"tenant": "acme"}), Document("kb-2"), Document("kb-1")]
    frame = planted(user="ada", tenant="acme", documents=documents)
    plain, hashed = (
        config(tmp_path / "plain"),
        config(tmp_path / "hashed", privacy=PrivacyConfig(hash=["user", "tenant", "document"])),
    )
    for settings in (plain, hashed):
        (tmp_path / settings.wire.endpoint.split("/")[-2]).mkdir()
        keep(settings, frame)
    (row,) = rows(plain)
    assert (row["user"], row["tenant"], row["documents"], row["document_tenants"]) == (
        "ada",
        "acme",
        ["kb-1", "kb-2"],
        ["acme"],
    )
    assert (row["route"], row["model"], row["kind"], row["redactions"]) == ("support", "model", "prompt", {"email": 20})
    assert row["key"] in reading_keys(plain.text, {"HEADWATCH_TEXT_KEY": KEY})
    (row,) = rows(hashed)
    assert all(
        name.startswith("h:") for name in (row["user"], row["tenant"], *row["documents"], *row["document_tenants"])
    )
    assert files_with(tmp_path / "hashed" / "state", "acme") == []
    with closing(connect(plain.store)) as connection:
        assert check(connection, plain.store).problems == []


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("kind", "value", "left"),
    [
        ("user", "ada", ["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"]), ("tenant", "acme", ["chatcmpl-0", "chatcmpl-3"]),
        ("document", "kb-9", ["chatcmpl-0", "chatcmpl-1", "chatcmpl-3"]),
    ],
)  # fmt: skip
def test_a_purge_takes_the_texts_of_somebody_and_those_that_contain_a_document(
    tmp_path: Path, kind: Identifier, value: str, left: list[str], hashed: bool
):
    settings = config(tmp_path, privacy=PrivacyConfig(hash=["user", "tenant", "document"] if hashed else []))
    keep(
        settings, planted(0, user="ada"), planted(1, tenant="acme"),
        planted(2, documents=[Document("kb-9", labels={"tenant": "acme"})]), planted(3, user="bob"),
    )  # fmt: skip
    report = purge(settings, kind, value)
    assert report.left == 0
    assert report.removed == {"headwatch_texts": 4 - len(left)}
    assert [row["request_id"] for row in rows(settings)] == left
    gone = {f"chatcmpl-{number}" for number in range(4)} - set(left)
    assert [files_with(tmp_path / "state", name) for name in gone] == [[]] * len(gone)


def test_a_purge_of_everything_before_a_moment_takes_texts(tmp_path: Path):
    settings = config(tmp_path)
    keep(settings, planted())
    assert purge(settings, None, before_ns=time.time_ns()).removed["headwatch_texts"] == 1
    assert rows(settings) == []


def test_each_text_expires_by_its_route(tmp_path: Path):
    """Two days later: that of a day is not answered any more, and gone from the disk with the next merge."""
    text = TextConfig(enabled=True, default="keep", ttl_days=3, routes={"short": TextRoute(ttl_days=1)})
    settings = config(tmp_path, text=text)
    with running(settings) as sidecar:
        assert sidecar._texts is not None
        assert sidecar.reader is not None
        sidecar._texts._clock_ns = lambda: time.time_ns() - 2 * DAY_NS
        send(settings, planted(0, route="short"), planted(1, route="long"))
        wait_for(lambda: sidecar.health().texts["kept"] == 2, "the texts to be sealed")
        wait_for(lambda: bool(sidecar.reader.texts("chatcmpl-1", 200)) or sidecar.tick() or False, "the store to have them")  # type: ignore[union-attr, func-returns-value] # ticks until it does
        assert sidecar.reader.texts("chatcmpl-0", 200) == []
    with closing(connect(settings.store)) as connection:
        connection.command("OPTIMIZE TABLE headwatch_texts FINAL")
        assert connection.query("SELECT request_id FROM headwatch_texts") == [{"request_id": "chatcmpl-1"}]


def test_what_has_expired_is_not_answered_while_it_is_still_on_the_disk(tmp_path: Path):
    settings = config(tmp_path)
    with closing(ClickHouseExporter.open(settings.store)) as store:
        store.connection.command("SYSTEM STOP TTL MERGES headwatch_texts")
        _insert(store, [keeper().kept(planted())], expires_ns=time.time_ns() + 3 * 10**9)
        reader = store.reader()
        assert len(reader.texts("chatcmpl-0")) == 1
        wait_for(lambda: reader.texts("chatcmpl-0") == [], "it to expire", 10)
        assert store.connection.query("SELECT count() AS n FROM headwatch_texts") == [{"n": 1}]


def test_the_api_of_a_whole_sidecar_answers_ciphertext_and_metrics_count(tmp_path: Path):
    (tmp_path / "token").write_text("t" * 32)
    (tmp_path / "token").chmod(0o600)
    settings = config(tmp_path)
    settings = msgspec.structs.replace(settings, http=HttpConfig(port=0, token_file=str(tmp_path / "token")))
    with running(settings) as sidecar:
        url = f"http://127.0.0.1:{sidecar._http.port}"
        send(settings, planted(), planted(1, canary="plain"))
        wait_for(lambda: sum(sidecar.health().texts.values()) == 2, "both texts")

        def found() -> list[dict[str, Any]]:
            sidecar.tick()
            answer = httpx.get(
                f"{url}/api/v1/texts", params={"request": "chatcmpl-0"}, headers={"Authorization": f"Bearer {'t' * 32}"}
            )
            rows: list[dict[str, Any]] = answer.raise_for_status().json()
            return rows

        wait_for(lambda: bool(found()), "the store to have it")
        assert sidecar.reader is not None
        assert len(sidecar.reader.texts("chatcmpl", 200)) == 1, "one of several prompts of a completion"
        assert sidecar.reader.texts("chatcmp", 200) == []
        assert sidecar.reader.texts("", 200) == []
        (row,) = found()
        assert row["redactions"] == {"email": 20}
        assert row["expires_ns"] > time.time_ns() + 2 * DAY_NS
        exposed = httpx.get(f"{url}/metrics").text
    assert "headwatch_text_kept_total 1.0" in exposed
    assert 'headwatch_text_refused_total{headwatch_reason="canary"} 1.0' in exposed
    assert SECRET not in exposed


def test_a_row_policy_covers_texts(tmp_path: Path):
    users = []
    for name, routes in (("all", ()), ("hr", ("hr",)), ("other", ("it",))):
        (tmp_path / name).write_text(name * 16)
        (tmp_path / name).chmod(0o600)
        services = ("elsewhere",) if name == "other" else ()
        users.append(ClickHouseUser(name=name, secret_file=str(tmp_path / name), routes=routes, services=services))
    made = [keeper().kept(planted(number, route=route)) for number, route in enumerate(("hr", "hr", "it"))]
    with serving_store(tmp_path, ClickHouseConfig(users=tuple(users))) as served:
        _insert(served.store, made)
        for name, count in (("all", 3), ("hr", 2), ("other", 0)):
            answer = served.ask("SELECT count(), uniqExact(body) FROM headwatch_texts", user=(name, name * 16))
            assert answer.text.split() == [str(count), str(count)]


def _insert(store: ClickHouseExporter, made: list[Any], expires_ns: int = 0) -> None:
    columns = text_columns(made, "vllm")
    expires = [expires_ns or time.time_ns() + DAY_NS] * len(made)
    store.connection.insert("headwatch_texts", {**columns, "expires": expires}, "texts")
