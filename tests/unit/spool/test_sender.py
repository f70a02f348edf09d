"""The spool drains into the store whatever the store does, and what happens now does not wait for what waited."""

from __future__ import annotations

import itertools
import random
import threading
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from headwatch.errors import BatchRefused, StoreError, StoreUnavailable
from headwatch_exporters.spool import sender as sending
from headwatch_exporters.spool.record import Batch
from headwatch_exporters.spool.sender import MAX_FAILURES, Sender
from headwatch_exporters.spool.spool import Spool

from ...programs import wait_for
from .records import batch, record, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Store:
    """Takes each token once, and does as it is told."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.attempts: Counter[str] = Counter()
        self.answer: Callable[[Batch], None] = lambda _: None
        """May raise instead of taking a batch."""
        self.after: Callable[[Batch], None] = lambda _: None
        """May raise after a batch was taken: the answer is lost."""

    def insert(self, one: Batch) -> None:
        self.attempts[one.token] += 1
        self.answer(one)
        if one.token not in self.taken:
            self.taken.append(one.token)
        self.after(one)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", 1 << 20)
    yield opened
    opened.close()


def sender(spool: Spool, store: Store, **more) -> Sender:
    return Sender(spool, store.insert, **{"first_pause_seconds": 0.001, "longest_pause_seconds": 0.01, **more})


def down(one: Batch) -> None:
    raise StoreUnavailable("connection refused")


def test_everything_arrives_in_order(spool, store):
    for number in range(50):
        spool.append(record(number))
    running = sender(spool, store)
    running.start()
    wait_for(lambda: not spool.waiting, "the spool to drain", 10)
    spool.append(record(50))
    wait_for(lambda: not spool.waiting, "what came later", 10)
    assert running.stop(1.0)
    assert store.taken == [f"r{number}" for number in range(51)]
    health = running.health()
    assert (health.up, health.sent_records, health.sent_batches, health.sent_rows, health.records) == (True, 51, 51, 51, 0)


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(spool, store):
    store.answer = down
    running = sender(spool, store)
    running.start()
    for number in range(30):
        spool.append(record(number))
    wait_for(lambda: running.health().errors.get("store_unavailable", 0) > 5, "some attempts", 10)
    health = running.health()
    assert (health.up, health.last_error, health.records) == (False, "connection refused", 30)
    assert health.oldest_ns == 0, "the delivery of second 0"
    store.answer = lambda _: None
    wait_for(lambda: not spool.waiting, "the spool to drain", 10)
    running.stop(1.0)
    assert sorted(store.taken) == sorted(f"r{number}" for number in range(30))
    assert running.health().up


def test_draining_does_not_starve_what_comes(tmp_path, store):
    """A backlog of 300: what comes while the store takes a delivery waits for that one, and if that is new too, for an old one.

    They come in the midst of an insert, after every one to seven others, and nothing waits for the disk, so that the order does
    not hang on anybody's clock.
    """
    spool = Spool(tmp_path / "spool", 1 << 20, fsync_seconds=1e9)
    for number in range(300):
        spool.append(record(number))
    spool.fall_behind()
    came: dict[str, tuple[int, int]] = {}
    """What was taken before, and how many may be until it is."""
    gaps = itertools.cycle(range(1, 8))
    due = next(gaps)

    def comes(one: Batch) -> None:
        nonlocal due
        if len(came) < 30 and len(store.taken) >= due and came.keys() <= {*store.taken, one.token}:
            name = f"r{1000 + len(came)}"
            came[name] = (len(store.taken), 2 if one.token in came else 1)
            spool.append(record(int(name[1:])))
            due = len(store.taken) + next(gaps)

    store.answer = comes
    running = sender(spool, store)
    running.start()
    wait_for(lambda: not spool.waiting, "all", 60)
    running.stop(1.0)
    spool.close()
    assert len(came) == 30
    assert {most for _, most in came.values()} == {1, 2}
    assert [name for name, (before, most) in came.items() if store.taken.index(name) - before > most] == []
    old = [token for token in store.taken if int(token[1:]) < 1000]
    assert old == [f"r{number}" for number in range(300)], "and the backlog comes in order"


def test_a_flood_of_new_deliveries_leaves_the_backlog_every_second_turn(spool, store):
    for number in range(40):
        spool.append(record(number))
    spool.fall_behind()
    for number in range(1000, 1060):
        spool.append(record(number))
    running = sender(spool, store)
    running.start()
    wait_for(lambda: not spool.waiting, "all", 10)
    running.stop(1.0)
    assert [int(token[1:]) >= 1000 for token in store.taken[:80]] == [True, False] * 40


def test_a_delivery_of_which_a_part_was_taken_is_sent_again_whole(spool, store):
    """Under the same tokens; and no further delivery of its lane is begun before it is done."""
    names = [f"b{number}" for number in range(5)]
    spool.append(record(0, *(batch(name) for name in names)))
    spool.append(record(1))
    failures = iter([StoreUnavailable("reset by peer"), StoreUnavailable("reset by peer")])

    def third(one: Batch) -> None:
        if one.token == "b2" and (error := next(failures, None)):
            raise error

    store.after = third  # taken, and the answer is lost
    running = sender(spool, store)
    running.start()
    wait_for(lambda: not spool.waiting, "all", 10)
    running.stop(1.0)
    assert sorted(store.taken) == sorted([*names, "r1"])
    assert [store.attempts[name] for name in names] == [3, 3, 3, 1, 1]


def test_between_two_attempts_at_one_delivery_the_store_takes_few_others(spool, store):
    """The store knows a token for its last 1,000 inserts.  However long the backlog and however often the store fails in the
    middle of a delivery, what was begun is finished before that."""
    for number in range(200):
        spool.append(record(number, batch(f"x{number}"), batch(f"y{number}")))
    inserted: list[str] = []
    first: dict[str, int] = {}
    distances = []
    chance = random.Random(1)

    def flaky(one: Batch) -> None:
        if chance.random() < 0.5:
            raise StoreUnavailable("reset by peer")
        if one.token in first:
            distances.append(len(inserted) - first[one.token])
        else:
            first[one.token] = len(inserted)
            inserted.append(one.token)

    store.answer = flaky
    running = sender(spool, store, longest_pause_seconds=0.002)
    running.start()
    for number in range(200, 260):
        spool.append(record(number, batch(f"x{number}"), batch(f"y{number}")))
        time.sleep(0.002)
    wait_for(lambda: not spool.waiting, "all", 30)
    running.stop(1.0)
    assert len(set(store.taken)) == 520
    assert distances, "some were begun twice"
    assert max(distances) <= 2 * (MAX_FAILURES + 2)
    assert spool.aside.batches == 0


def test_a_batch_that_the_store_refuses_is_set_aside_and_the_others_go_on(spool, store):
    def no(one: Batch) -> None:
        if one.token == "bad":
            raise BatchRefused("no such column: b")

    store.answer = no
    spool.append(record(0, batch("good"), batch("bad", "two", 4), batch("fine")))
    spool.append(record(1))
    running = sender(spool, store)
    running.start()
    wait_for(lambda: not spool.waiting, "all", 10)
    running.stop(1.0)
    assert store.taken == ["good", "fine", "r1"]
    health = running.health()
    assert (health.up, health.aside_batches, health.sent_batches, health.dropped_rows) == (True, 1, 3, {})
    ((_, kept),) = spool.aside.entries()
    assert kept == batch("bad", "two", 4)


@pytest.mark.parametrize("error", [StoreError("TOO_MANY_PARTS"), StoreUnavailable("reset by peer")])
def test_what_fails_alone_and_again_and_again_is_set_aside_in_the_end(spool, store, error):
    """A body that the proxy before the store does not let through looks like a store that is away."""

    def full(one: Batch) -> None:
        if one.token == "r0":
            raise error

    store.answer = full
    running = sender(spool, store, longest_pause_seconds=0.002)
    running.start()
    spool.append(record(0))
    wait_for(lambda: store.attempts["r0"] > 2 * MAX_FAILURES, "attempts while nothing else goes through", 10)
    assert spool.waiting == 1, "which prove nothing about it"
    for number in range(1, 200):
        spool.append(record(number))
        time.sleep(0.002)
    wait_for(lambda: not spool.waiting, "the others and then this one", 10)
    running.stop(1.0)
    assert len(store.taken) == 199
    assert spool.aside.batches == 1


def test_an_error_that_nobody_foresaw_does_not_end_the_sending(spool, store):
    errors = iter([KeyError("x"), RuntimeError("y")])

    def odd(_: Batch) -> None:
        if (error := next(errors, None)) is not None:
            raise error

    store.answer = odd
    running = sender(spool, store)
    running.start()
    spool.append(record(0))
    wait_for(lambda: store.taken == ["r0"], "the delivery", 10)
    running.stop(1.0)
    assert running.health().errors["unexpected"] == 2


def test_pauses_grow_to_a_bound_and_are_spread(spool, store, monkeypatch):
    """Full jitter: each pause lies anywhere between nothing and its bound."""
    store.answer = down
    running = sender(spool, store, first_pause_seconds=0.5, longest_pause_seconds=60.0, jitter=lambda: 0.5)
    pauses: list[float] = []
    done = threading.Event()

    def note(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 12:
            done.set()
            running._stopping.set()
        return False

    monkeypatch.setattr(running._stopping, "wait", note)
    spool.append(record(0))
    running.start()
    assert done.wait(10)
    running._thread.join(5)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert sending.LONGEST_PAUSE_SECONDS == 60.0


def test_the_end_waits_neither_for_a_store_that_is_away_nor_for_a_long_backlog(spool, store):
    store.answer = down
    for number in range(100):
        spool.append(record(number))
    running = sender(spool, store, first_pause_seconds=30.0, longest_pause_seconds=60.0, jitter=lambda: 1.0)
    running.start()
    wait_for(lambda: bool(running.health().errors), "the first attempt", 5)
    started = time.monotonic()
    assert running.stop(5.0)
    assert time.monotonic() - started < 1.0
    assert len(waiting(spool)) == 100

    store.answer = lambda _: time.sleep(0.05)
    slow = sender(spool, store)
    slow.start()
    started = time.monotonic()
    assert slow.stop(0.5)
    assert 0.3 < time.monotonic() - started < 1.5
    assert 80 < len(waiting(spool)) < 99


def test_a_slow_store_holds_up_no_record(spool, store):
    """While an insert hangs the spool takes what comes, and nothing but the disk grows."""
    gate = threading.Event()
    store.answer = lambda _: gate.wait(10) and None
    running = sender(spool, store)
    running.start()
    spool.append(record(0))
    wait_for(lambda: store.attempts["r0"] == 1, "the insert to begin", 5)
    tracemalloc.start()
    for number in range(1, 600):
        spool.append(record(number, batch(f"r{number}", content=bytes(100))))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    health = running.health()
    assert (health.up, health.records) == (True, 600)
    assert grown < 100_000
    gate.set()
    wait_for(lambda: not spool.waiting, "all", 60)
    running.stop(1.0)
    assert len(store.taken) == 600


def test_what_is_given_up_costs_no_other_batch_of_its_delivery(spool, store):
    """At the moment at which one is given up the store is away for all: the others wait for it."""
    away = threading.Event()

    def odd(one: Batch) -> None:
        if one.token == "odd":
            away.set() if store.attempts["odd"] == MAX_FAILURES else None
            raise StoreUnavailable("reset by peer")
        if one.token == "even" and away.is_set():
            away.clear()
            raise StoreUnavailable("connection refused")

    store.answer = odd
    running = sender(spool, store, longest_pause_seconds=0.002)
    running.start()
    spool.append(record(0, batch("odd"), batch("even")))
    for number in range(1, 100):
        spool.append(record(number))
        time.sleep(0.003)
    wait_for(lambda: not spool.waiting, "all", 10)
    running.stop(1.0)
    assert "even" in store.taken
    assert [kept.token for _, kept in spool.aside.entries()] == ["odd"]
