"""From frame to sealed row: what is kept, what is refused and why, and that no message shows any text."""

from __future__ import annotations

import logging
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.config import RedactPattern, TextConfig, TextRoute
from headwatch.errors import ConfigError, TextError
from headwatch.sampling import is_text_sampled
from headwatch.text import keeper as module
from headwatch.text.hook import MOST_STUCK, Hook, HookContext

from ...programs import wait_for
from .texts import KEPT, NOW_NS, keeper, kept, opened, text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "zebra-secret-77"


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], TextConfig]:
    """Make a function the hook of a configuration."""

    def make(function: Callable[..., Any], seconds: float = 5.0) -> TextConfig:
        made = types.ModuleType("operators_own")
        made.hook = function  # type: ignore[attr-defined] # a module takes attributes
        monkeypatch.setitem(sys.modules, "operators_own", made)
        return TextConfig(enabled=True, default="keep", hook="operators_own:hook", hook_seconds=seconds)

    return make


def reason(config: TextConfig, text: str = SECRET, **named: Any) -> str:
    with pytest.raises(TextError) as refused:
        kept(text, config, **named)
    assert SECRET not in str(refused.value)
    return refused.value.reason


def test_a_row_says_what_became_of_the_text_and_expires_by_its_route():
    config = TextConfig(enabled=True, routes={"support": TextRoute(keep=True, ttl_days=2, max_chars=20)})
    row = keeper(config).kept(text_frame("mail a@b.example, and some more", user="u"))
    assert opened(row) == "mail [email], an", "the limit counts what was there before"
    assert (row.chars, row.kept_chars, row.redactions, row.kind) == (31, 16, {"email": 1}, "prompt")
    assert row.expires_ns == NOW_NS + 2 * 86_400 * 10**9
    assert b"mail" not in row.body


@pytest.mark.parametrize(
    ("config", "named", "why"),
    [
        (TextConfig(enabled=True), {}, "route"),
        (TextConfig(enabled=True, default="keep", routes={"support": TextRoute(keep=False)}), {}, "route"),
        (KEPT, {"canary": "plain"}, "canary"),
        (KEPT, {"errors": ["malformed_json"]}, "route_unknown"),
    ],
)
def test_the_sidecar_holds_to_its_own_rules_whatever_comes(config: TextConfig, named: dict[str, Any], why: str):
    assert reason(config, **named) == why


def test_the_share_is_drawn_here_too_as_the_front_end_draws_it():
    config = TextConfig(enabled=True, default="keep", sample_rate=0.25)
    drawn = [number for number in range(400) if is_text_sampled(text_frame(request_id=f"r-{number}").context, 0.25)]
    one = keeper(config)
    kept_here, reasons = [], set()
    for number in range(400):
        try:
            one.kept(text_frame(request_id=f"r-{number}"))
        except TextError as error:
            reasons.add(error.reason)
        else:
            kept_here.append(number)
    assert kept_here == drawn
    assert reasons == {"sample"}
    assert 60 < len(drawn) < 140
    assert reason(TextConfig(enabled=True, default="keep", sample_rate=0.0)) == "sample"


def test_a_text_that_waited_expires_as_if_it_had_not():
    day_ns = 86_400 * 10**9
    one = keeper(TextConfig(enabled=True, default="keep", ttl_days=3))
    for waited_days, left_days in ((0, 3), (2, 1), (-5, 3)):
        frame = msgspec.structs.replace(text_frame(), time_ns=NOW_NS - waited_days * day_ns)
        assert one.kept(frame).expires_ns == NOW_NS + left_days * day_ns
    with pytest.raises(TextError) as refused:
        one.kept(msgspec.structs.replace(text_frame(), time_ns=NOW_NS - 3 * day_ns))
    assert refused.value.reason == "expired"


def test_a_hook_has_the_last_word(hooked: Callable[..., TextConfig]):
    told: list[tuple[str, HookContext]] = []

    def hook(text: str, context: HookContext) -> str | None:
        told.append((text, context))
        return text.upper() * 2

    assert kept("a@b.de x", hooked(hook)) == "[EMAIL] X[EMAIL] X"
    assert told == [("[email] x", HookContext("vllm", "support", "prompt", "model", "", ""))]
    assert len(kept("a" * 6000, hooked(hook))) == 8192, "it cannot make a text longer than the limit"


def test_a_hook_that_fails_in_any_way_keeps_nothing(hooked: Callable[..., TextConfig]):
    def leaking(text: str, _: HookContext) -> str:
        raise RuntimeError(text)

    def leaving(text: str, _: HookContext) -> str:
        sys.exit(text)

    assert reason(hooked(leaking)) == "hook_error"
    assert reason(hooked(leaving)) == "hook_error"
    assert reason(hooked(lambda text, _: text.encode())) == "hook_type"
    assert reason(hooked(lambda *_: None)) == "hook_none"


def test_hooks_that_hang_are_left_behind_and_at_most_four_of_them(hooked: Callable[..., TextConfig]):
    let_go = threading.Event()
    config = hooked(lambda text, _: text if let_go.wait(30) else None, 0.05)
    one = keeper(config)
    reasons = []
    started = time.monotonic()
    for _ in range(MOST_STUCK + 2):
        with pytest.raises(TextError) as refused:
            one.kept(text_frame(SECRET))
        reasons.append(refused.value.reason)
    assert reasons == ["hook_timeout"] * MOST_STUCK + ["hook_stuck"] * 2
    assert time.monotonic() - started < 2.0, "each waits as long as it was told to"
    let_go.set()
    assert one._hook is not None
    wait_for(lambda: not any(thread.is_alive() for thread in one._hook._stuck), "them to come back")  # type: ignore[union-attr]
    assert opened(one.kept(text_frame(SECRET))) == SECRET


@pytest.mark.parametrize("name", ["no_such_module:hook", "headwatch.errors:nothing", "headwatch:__version__"])
def test_a_hook_that_is_not_there_is_refused_at_the_start(name: str):
    with pytest.raises(ConfigError, match=r"text\.hook"):
        Hook.load(name, 1.0)


@pytest.fixture
def started() -> Iterator[Callable[[TextConfig], module.TextKeeper]]:
    made: list[module.TextKeeper] = []

    def start(config: TextConfig = KEPT) -> module.TextKeeper:
        made.append(keeper(config))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def test_every_text_that_is_offered_ends_as_kept_or_as_refused(
    started: Callable[..., module.TextKeeper], hooked: Callable[..., TextConfig], caplog: pytest.LogCaptureFixture
):
    def hook(text: str, _: HookContext) -> str:
        if text.endswith("bad"):
            raise ValueError(text)
        return text

    one = started(hooked(hook))
    for number in range(20):
        one.offer(text_frame(f"{SECRET} {'bad' if number % 4 == 0 else 'good'}", sequence=number))
    wait_for(lambda: sum(one.counters.values()) == 20, "all of them")
    assert one.counters == {"kept": 15, "refused.hook_error": 5}
    assert len(one.take()) == 15
    assert one.take() == ()
    assert sum("a text is not kept (hook_error)" in record.message for record in caplog.records) == 1
    assert SECRET not in caplog.text


def test_texts_that_never_arrived_are_counted_by_the_gaps(started: Callable[..., module.TextKeeper]):
    one = started()
    for sequence in (5, 6, 9, 10):  # a sidecar that starts later has lost nothing
        one.offer(text_frame(sequence=sequence))
    assert one.counters["refused.lost"] == 2


def test_a_full_queue_and_a_slow_store_drop_and_count(
    started: Callable[..., module.TextKeeper], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "QUEUE_CHARS", 50)
    monkeypatch.setattr(module, "READY_TEXTS", 1)
    waiting = keeper()
    for number in range(10):
        waiting.offer(text_frame("x" * 20, sequence=number))
    assert waiting.counters == {"kept": 0, "refused.queue_full": 8}
    waiting.start()
    waiting.stop()
    assert waiting.counters == {"kept": 1, "refused.queue_full": 8, "refused.store_slow": 1}
    waiting.offer(text_frame(sequence=10))
    assert waiting.counters["refused.queue_full"] == 9, "after the end nothing is taken"


def test_no_representation_shows_a_text_or_an_identifier(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    frame = text_frame(SECRET, user="zebra-user")
    row = keeper(TextConfig(enabled=True, default="keep", redact=(RedactPattern("x", "y"),))).kept(frame)
    for shown in (repr(frame), str(frame), f"{[frame]}", repr(row.body)):
        assert SECRET not in shown
    assert "zebra-user" not in repr(frame)
    assert SECRET not in caplog.text
