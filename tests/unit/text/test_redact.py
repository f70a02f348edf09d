"""Redaction: what is found is replaced and counted, what only looks like it stays, and nothing takes for ever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import RedactPattern, TextConfig, TextRoute
from headwatch.config.text import REDACTION_MARGIN
from headwatch.errors import ConfigError, TextError
from headwatch.text.patterns import is_card
from headwatch.text.redact import redactors

from .texts import keeper, kept, opened, text_frame

GENERAL, _ = redactors(TextConfig())


def redacted(text: str) -> str:
    return GENERAL(text, len(text))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ada.lovelace+x@mail.example.org, please", "write to [email], please"),
        ("jürgen@straße.example.de", "[email]"),
        ("from 192.168.1.77 to 2001:db8::7:1.", "from [ip] to [ip]."),
        ("::1 and fe80::1ff:fe23:4567:890a", "[ip] and [ip]"),
        ("card 4111 1111 1111 1111!", "card [card]!"),
        ("5500-0055-5555-5559", "[card]"),
        ("378282246310005", "[card]"),
        ("AKIAIOSFODNN7EXAMPLE is old", "[key] is old"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[key]"),
        ("sk-proj-abcdefghijklmnop1234", "[key]"),
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: [key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "[key]"),
        ('password: "hunter2hunter2"', '[key]"'),
        ("api_key=abc12345 and more", "[key] and more"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x", "[key] x"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE that goes on", "[key]"),
        ("call +49 30 901820 or (030) 90 18 20, 0171/1234567", "call [phone] or [phone], [phone]"),
    ],
)
def test_what_the_built_in_patterns_find(text: str, expected: str):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30:45 on 2026-11-30", "version 1.2.3 of 4.5.6.7.8", "999.1.1.1", "4111 1111 1111 1112", "1234567890123456",
        "the @ sign", "a token of esteem", "3.14159265358979", "C++ :: scope", "100000 rows in 2026",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(text: str):
    assert redacted(text) == text


@given(digits=st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_exactly_one_last_digit_makes_a_card_of_any_digits(digits: list[int]):
    body = "".join(map(str, digits))
    assert sum(is_card(f"{body}{last}") for last in range(10)) == 1


@given(text=st.text(max_size=300), limit=st.integers(0, 300))
def test_without_a_find_redaction_is_a_cut(text: str, limit: int):
    nothing, _ = redactors(TextConfig(builtin=()))
    assert nothing(text, limit) == (text[:limit], {})


def test_finds_are_counted_by_name_and_replaced_as_configured():
    own = (RedactPattern("ticket", r"T-\d+", r"\0<ticket>"), RedactPattern("staff", r"P\d{4}"))
    general, routes = redactors(TextConfig(redact=own[:1], routes={"hr": TextRoute(redact=own[1:])}))
    assert general("T-1 and T-22 by P1234, a@b.de", 100) == (
        r"\0<ticket> and \0<ticket> by P1234, [email]",
        {"email": 1, "ticket": 2},
    )
    assert routes["hr"]("T-1 by P1234", 100) == (r"\0<ticket> by [staff]", {"ticket": 1, "staff": 1})


@pytest.mark.parametrize("place", range(80, 101))
def test_what_the_limit_cuts_in_half_is_still_found(place: int):
    """No digit of a card that begins before the limit is kept, wherever it falls; what begins behind it does not count."""
    card, limit = "4111 1111 1111 1111", 100
    text = "." * place + card + "." * 2000
    row = keeper(TextConfig(enabled=True, default="keep", max_chars=limit)).kept(
        text_frame(text[: limit + REDACTION_MARGIN], chars=len(text))
    )
    found = opened(row)
    assert "1" not in found
    assert found.startswith("." * place)
    assert len(found) <= limit
    assert row.redactions == ({"card": 1} if place < limit else {})
    assert (row.chars, row.kept_chars) == (len(text), len(found))


def test_a_find_before_the_limit_moves_it_and_no_more():
    """What is kept is what became of the first characters, however much shorter they became."""
    long = "sk-" + "a" * 60
    text = f"{long} {'b' * 36} and what lies behind the limit"
    assert kept(text, TextConfig(enabled=True, default="keep", max_chars=100)) == f"[key] {'b' * 36}"


def test_a_pattern_that_runs_away_is_stopped_and_its_text_refused():
    config = TextConfig(
        enabled=True, default="keep", redact=(RedactPattern("runaway", r"(a|aa)+$|(a|aa)+b"),), pattern_seconds=0.1
    )
    started = time.monotonic()
    with pytest.raises(TextError) as refused:
        keeper(config).kept(text_frame("a" * 5000 + "c"))
    assert time.monotonic() - started < 5
    assert refused.value.reason == "pattern_timeout"
    assert "runaway" in str(refused.value)
    assert "aaa" not in str(refused.value)


@pytest.mark.parametrize(
    "letter", [*"a1 .:@-_(/+A\n\"='", "eyJ", "sk-", "-----BEGIN ", "1.1.", "a@a.", "::", "4 ", "token=", "bearer "]
)
def test_the_built_in_patterns_do_not_run_away(letter: str):
    """On the longest text that is ever looked at, of what each of them repeats."""
    patient, _ = redactors(TextConfig(pattern_seconds=5.0))
    text = (letter * (2**18))[: 2**18 + REDACTION_MARGIN] + "!"
    assert len(patient(text, len(text))[0]) <= 2 * len(text)


@pytest.mark.parametrize(("pattern", "message"), [("(", "missing"), ("a*", "where there is nothing")])
def test_a_pattern_that_cannot_be_used_is_refused_at_the_start(pattern: str, message: str):
    with pytest.raises(ConfigError, match=f"bad.*{message}"):
        redactors(TextConfig(redact=(RedactPattern("bad", pattern),)))
