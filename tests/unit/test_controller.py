"""The sidecar's live control: kept over restarts, audited without a gap, and honest about who follows."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwatch.config import RouteConfig
from headwatch.control.audit import AuditEntry, AuditLog
from headwatch.control.controller import Controller
from headwatch.control.orders import Change
from headwatch.control.state import StateFile
from headwatch.errors import CommandError, ControlError
from headwatch.records import Stratum
from headwatch.wire.control import ControlMessage, decode

from .controls import SECRET, Clock, controller
from .sidecars import reporting

RATE = RouteConfig(sample_rate=0.5)
STRATUM = Stratum("model", "rev", "", "hr", "512-1k", "decode")


def said(made: Controller) -> ControlMessage:
    return decode(made.message()[0], SECRET)


def kept(folder: Path) -> list[dict[str, Any]]:
    path = folder / "control.audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_was_changed_is_what_is_said(tmp_path: Path):
    made = controller(tmp_path, Clock())
    first = said(made)
    assert (first.enabled, first.everything, first.raises) == (True, RouteConfig(), [])
    epoch = made.make(Change("set", to=RATE, route="hr"), "alice")
    made.make(Change("off", seconds=60.0), "alice")
    last = said(made)
    assert (last.enabled, last.routes, last.expires_seconds) == (False, {"hr": RATE}, 60.0)
    assert last.epoch == epoch + 1 > first.epoch
    assert said(made).sequence > last.sequence


def test_every_change_is_audited_with_who_when_what_old_and_new(tmp_path: Path):
    clock = Clock()
    made = controller(tmp_path, clock)
    made.make(Change("set", to=RATE, why="too little"), "alice")
    made.make(Change("set", to=RouteConfig(sample_rate=0.7)), "bob")
    number = made.raise_stratum(STRATUM, RouteConfig(detail=1), 30.0, "incident 7", "evidence")
    clock.forward(31.0)
    made.make(Change("off", seconds=5.0), "carol")
    clock.forward(6.0)
    said(made)
    made.make(Change("reset"), "alice")
    entries = kept(tmp_path)
    assert [(entry["who"], entry["action"]) for entry in entries] == [
        ("alice", "set"), ("bob", "set"), ("incident 7", "raise"), ("sidecar", "expired"), ("carol", "off"),
        ("sidecar", "expired"), ("alice", "reset"),
    ]  # fmt: skip
    assert [entry["epoch"] for entry in entries] == list(range(1001, 1008))
    assert (entries[0]["time"], entries[0]["why"]) == ("2023-11-14T22:13:20.000+00:00", "too little")
    assert (entries[1]["old"], entries[1]["new"]) == ({"everything.sample_rate": 0.5}, {"everything.sample_rate": 0.7})
    assert entries[2]["new"][f"raises.{number}"]["target"] == {
        "model": "model", "route": "hr", "adapter": "", "context_from": 512, "context_to": 1024,
    }  # fmt: skip
    assert entries[3]["new"] == {f"raises.{number}": None}
    assert entries[5]["new"] == {"enabled": True, "everything.sample_rate": None, "seconds": 0.0, "since": 0}
    assert made.audit(2) == list(reversed(entries))[:2]


def test_a_raise_puts_itself_back_and_can_be_ended_before(tmp_path: Path):
    clock = Clock()
    made = controller(tmp_path, clock)
    first = made.raise_stratum(STRATUM, RATE, 30.0, "incident 1")
    second = made.raise_stratum(STRATUM, RATE, 60.0, "incident 2")
    assert [item.number for item in said(made).raises] == [first, second]
    assert made.message()[1] == 30.0, "the publisher is told when the next limit passes"
    clock.forward(20.0)
    assert [item.seconds for item in said(made).raises] == [10.0, 40.0]
    clock.forward(10.0)
    assert [item.number for item in said(made).raises] == [second]
    made.end_raise(second, "incident 2", "resolved")
    assert said(made).raises == []
    with pytest.raises(ControlError, match=f"no raise {first}"):
        made.end_raise(first, "incident 1")


def test_orders_outlive_the_sidecar_and_its_next_life_speaks_louder(tmp_path: Path):
    clock = Clock()
    before = controller(tmp_path, clock)
    before.make(Change("set", to=RATE), "alice")
    before.make(Change("off", seconds=100.0), "alice")
    before.make(Change("raise", to=RATE, seconds=50.0), "alice")
    old = said(before)
    clock.wall_ns += 20_000_000_000  # twenty seconds pass while no sidecar runs; another boot's monotonic clock begins anew
    clock.seconds = 5.0
    new = said(controller(tmp_path, clock))
    assert (new.enabled, new.everything, new.since) == (False, RATE, old.since)
    assert new.expires_seconds == pytest.approx(80.0)
    assert [(item.number, item.seconds) for item in new.raises] == [(old.raises[0].number, pytest.approx(30.0))]
    assert new.epoch > old.epoch
    assert new.start_id != old.start_id


@pytest.mark.parametrize(("jump_seconds", "left"), [(-86_400, 50.0), (10, 40.0), (86_400, None)])
def test_a_clock_that_jumps_while_no_sidecar_runs_never_prolongs_a_limit(tmp_path: Path, jump_seconds: int, left: float | None):
    clock = Clock()
    controller(tmp_path, clock).make(Change("raise", to=RATE, seconds=50.0), "alice")
    clock.wall_ns += jump_seconds * 1_000_000_000
    raises = said(controller(tmp_path, clock)).raises
    assert [item.seconds for item in raises] == ([] if left is None else [pytest.approx(left)])


def test_a_clock_that_jumps_while_the_sidecar_runs_moves_no_limit(tmp_path: Path):
    clock = Clock()
    made = controller(tmp_path, clock)
    made.make(Change("raise", to=RATE, seconds=50.0), "alice")
    clock.wall_ns -= 10**18
    clock.seconds += 20.0
    assert said(made).raises[0].seconds == pytest.approx(30.0)


@pytest.mark.parametrize("content", ["{", '{"epoch": "x"}', '{"version": 9}', "\x00\x01"])
def test_a_state_file_that_cannot_be_read_is_said_and_replaced(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture):
    (tmp_path / "control.json").write_text(content)
    made = controller(tmp_path, Clock())
    assert "live control starts without orders" in caplog.text
    made.make(Change("set", to=RATE), "alice")
    assert said(controller(tmp_path, Clock())).everything == RATE


def test_where_the_state_file_was_lost_workers_tell_how_far_they_are(tmp_path: Path):
    """Without this they would refuse all that the new life says as stale, until they are restarted."""
    made = controller(tmp_path, Clock())
    made.make(Change("set", to=RATE), "alice")
    made.heard([reporting(control_epoch=41_007), reporting(control_epoch=3)])
    last = said(made)
    assert (last.epoch, last.everything) == (42_000, RATE)
    made.heard([reporting(control_epoch=42_000)])
    made.heard([reporting(control_epoch=2**53)])
    assert said(made).epoch == 42_000, "what no honest worker can have heard is no reason to run out of epochs"


def test_state_and_audit_are_their_owners_alone(tmp_path: Path):
    controller(tmp_path, Clock()).make(Change("off"), "alice")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("control.json", "control.audit.jsonl")} == {0o600}
    assert StateFile(tmp_path / "control.json").load().orders.enabled is False


@pytest.mark.parametrize("broken", ["control.json.new", "control.audit.jsonl"])
def test_a_change_that_cannot_be_kept_or_audited_is_refused_but_the_off_switch_works(tmp_path: Path, broken: str):
    made = controller(tmp_path, Clock())
    made.start()
    (tmp_path / broken).mkdir()  # as a full or read-only disk would: it cannot be opened for writing
    before = said(made)
    with pytest.raises(ControlError, match="cannot be kept and audited") as caught:
        made.make(Change("set", to=RATE), "alice")
    assert caught.value.reason == "unrecorded"
    assert (said(made).epoch, said(made).everything) == (before.epoch, RouteConfig())
    made.make(Change("off"), "alice")
    assert (said(made).epoch, said(made).enabled) == (before.epoch + 1, False)
    made.stop()
    (tmp_path / broken).rmdir()
    later = said(controller(tmp_path, Clock()))
    assert later.epoch > before.epoch + 1, "the next life begins above what this one published and could not save"


def test_limits_pass_also_where_nothing_can_be_written(tmp_path: Path):
    clock = Clock()
    made = controller(tmp_path, clock)
    made.make(Change("raise", to=RATE, seconds=5.0), "alice")
    (tmp_path / "control.json.new").mkdir()
    clock.forward(6.0)
    assert said(made).raises == []


def test_without_a_secret_live_control_is_off_and_says_so(tmp_path: Path):
    made = controller(tmp_path, Clock(), secret=b"")
    made.start()
    shown = made.show()
    assert (shown["live"], shown["acknowledged"]) == (False, 0)
    assert "wire.control_secret_file names no secret" in shown["reason"]
    for change in (Change("off"), Change("set", to=RATE)):
        with pytest.raises(ControlError, match="live control is off") as caught:
            made.make(change, "alice")
        assert caught.value.reason == "off"
    made.stop()
    assert list(tmp_path.iterdir()) == []


def test_it_shows_who_follows_and_who_does_not(tmp_path: Path):
    follower = reporting(control_epoch=1001, sample_rate=0.5)
    deaf = reporting(control_epoch=0, errors={"control_mac": 9, "self_check": 1})
    made = controller(tmp_path, Clock(), [follower, deaf])
    made.make(Change("set", to=RATE), "alice")
    shown = made.show()
    assert (shown["acknowledged"], shown["of"]) == (1, 2)
    assert [(worker["acknowledged"], worker["refused"]) for worker in shown["workers"]] == [
        (True, {}), (False, {"control_mac": 9}),
    ]  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(shown))["everything"] == {"sample_rate": 0.5}


def test_orders_that_would_not_fit_into_a_message_are_refused(tmp_path: Path):
    made = controller(tmp_path, Clock())

    def order_routes() -> None:
        for number in range(256):
            made.make(Change("set", route=f"{number:03}" + "\U0001f600" * 125, to=RATE), "alice")

    with pytest.raises(ControlError, match="more than 131072"):
        order_routes()
    assert 200 < len(said(made).routes) < 256


def test_an_endpoint_in_use_and_a_folder_that_cannot_be_written_end_the_start_with_one_clear_error(tmp_path: Path):
    first, second = controller(tmp_path / "a", Clock(), endpoint=f"ipc://{tmp_path}/c"), None
    (tmp_path / "file").write_text("")
    first.start()
    try:
        second = controller(tmp_path / "b", Clock(), endpoint=f"ipc://{tmp_path}/c")
        with pytest.raises(CommandError, match=r"is another sidecar running\? \(wire\.control_endpoint\)"):
            second.start()
        with pytest.raises(CommandError, match=r"cannot keep its state in .*\(wire\.control_state_file\)"):
            controller(tmp_path / "file", Clock(), endpoint=f"ipc://{tmp_path}/d").start()
    finally:
        first.stop()


def test_changes_from_many_threads_are_all_made_and_all_audited(tmp_path: Path):
    made = controller(tmp_path, Clock())
    threads = [
        threading.Thread(target=made.make, args=(Change("set", route=f"r{number}", to=RATE), f"user {number}"))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(said(made).routes) == {f"r{number}" for number in range(20)}
    entries = kept(tmp_path)
    assert [entry["epoch"] for entry in entries] == list(range(1001, 1021))
    assert {entry["who"] for entry in entries} == {f"user {number}" for number in range(20)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["set", "off", "raise", "end", ""]),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["action", "to", "target", "seconds", "route", "number", "detail", "x"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_is_sent_is_a_change_or_refused_as_invalid(tmp_path: Path, body: bytes):
    made = controller(tmp_path, Clock())
    reason = "invalid"
    try:
        made.change(body, "fuzz")
    except ControlError as error:
        reason = error.reason
    assert reason == "invalid", "a mistake of the caller, and nothing that would be logged or tried again"
    said(made)


def test_the_audit_has_a_cap_and_keeps_the_latest(tmp_path: Path):
    log = AuditLog(tmp_path / "audit.jsonl", max_bytes=4096)
    for number in range(300):
        log.append(AuditEntry("2026-11-24T14:00:00.000+00:00", "alice", "set", number, "", {}, {"x": number}))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 4096
    latest = [entry.epoch for entry in log.latest(1000)]
    assert latest == list(range(299, 299 - len(latest), -1))
    assert len(latest) > 20


def test_an_audit_line_that_was_cut_short_spoils_no_other(tmp_path: Path):
    log = AuditLog(tmp_path / "audit.jsonl")
    entry = AuditEntry("t", "alice", "set", 1, "", {}, {})
    log.append(entry)
    with (tmp_path / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"time": "t", "wh\n\xff\xfe\n')
    log.append(entry)
    assert log.latest(10) == [entry, entry]
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl"]
