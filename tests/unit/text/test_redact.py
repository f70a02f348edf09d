"""Redaction: what is found is replaced and counted, what only looks like it stays, and nothing takes for ever."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.config import RedactPattern, TextConfig, TextRoute
from headwatch.config.text import REDACTION_MARGIN
from headwatch.errors import ConfigError, TextError
from headwatch.text.patterns import cards
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
        ('password: "hunter2hunter2"', "[key]"),
        ("api_key=abc12345 and more", "[key] and more"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x", "[key] x"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE that goes on", "[key]"),
        ("call +49 30 901820 or (030) 90 18 20, 0171/1234567", "call [phone] or [phone], [phone]"),
    ],
)
def test_what_the_built_in_patterns_find(text: str, expected: str):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111 1111 1111 1111 123", "[card] 123"), ("4111 1111 1111 1111 12/27", "[card] 12/27"),
        ("order 12 4111 1111 1111 1111", "order 12 [card]"), ("1 4111111111111111", "1 [card]"),
        ("qty 3 378282246310005", "qty 3 [card]"), ("2024-4111 1111 1111 1111", "2024-[card]"),
        ("4111-1111-1111-1111 5500-0000-0000-0004", "[card] [card]"),
        ("4111  1111  1111  1111", "[card]"), ("4111.1111.1111.1111", "[card]"),
        ("4111\u00a01111\u00a01111\u00a01111", "[card]"), ("4111\u20111111\u20111111\u20111111", "[card]"),
        ("+1-555-123-4567 4111111111111111", "[phone] [card]"),
        ("token: 4111 1111 1111 1111", "[key]"),
    ],
)  # fmt: skip
def test_a_card_is_found_beside_other_digits_and_whatever_separates_its_own(text: str, expected: str):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DB_PASSWORD=hunter22", "DB_[key]"), ("PGPASSWORD=hunter22 x", "PG[key] x"),
        ("aws_secret_access_key = wJalrXUtnFEMIK7MDENG/bPxRfiCY", "aws_[key]"), ("client_secret: abcdefghijkl", "client_[key]"),
        ("access_token=abcdefghijkl12", "access_[key]"), ("SECRET_KEY=abcd1234efgh", "[key]"),
        ("OPENAI_API_KEY=abcdefghijkl12345", "OPENAI_[key]"), ("DB_PASSWORD_2=hunter22", "DB_[key]"),
        ('password: "correct horse battery" ok', "[key] ok"), ("password='correct horse' ok", "[key] ok"),
        ("password = abcd,efgh1234 ok", "[key] ok"), ("password=a,bcdefgh", "[key]"), ("passwd: a;bc", "[key]"),
        (r'{"password": "abc\"def 12"}', '{"[key]}'), (r'"{\"password\": \"correct horse\"}"', r'"{\"[key]}"'),
        ("hf_" + "a" * 600, "[key]"), ("Bearer " + "a" * 5000, "[key]"), ("eyJ" + "a" * 5000 + "." + "b" * 900 + ".c", "[key]"),
        ("-----BEGIN RSA PRIVATE KEY-----\n" + "M" * 12000 + "\n-----END RSA PRIVATE KEY----- x", "[key] x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n" + "word " * 3000, "[key]"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nab-cd\n-----END PGP PRIVATE KEY BLOCK-----", "[key]"),
    ],
)  # fmt: skip
def test_a_key_is_found_by_the_end_of_its_name_and_taken_whole(text: str, expected: str):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.5:8080", "[ip]:8080"), ("http://10.0.0.5:8080/x", "http://[ip]:8080/x"), ("IP:10.0.0.5", "IP:[ip]"),
        ("10.0.0.5: refused", "[ip]: refused"), ("2001:db8::1: refused", "[ip]: refused"), ("addr:2001:db8::1", "addr:[ip]"),
        ("[2001:db8::1]:443", "[[ip]]:443"), ("::ffff:10.0.0.5", "[ip]"), ("deadbeef:2001:db8::1", "deadbeef:[ip]"),
        ("2001:db8:0:0:0:0:0:1:443", "[ip]:443"), ("(192.168.1.77)", "[ip])"),
        ("x" * 70 + "@example.com", "[email]"), ("." * 66 + "a@example.com", "[email]"), ("jose\u0301@example.com", "[email]"),
        ("o'brien@example.com", "[email]"), ("'ada@example.com'", "'[email]'"), ("ada@exa_mple.com", "[email]"),
        ("+49\u00a0170\u00a01234567", "[phone]"), ("+49\u2011170\u20111234567", "[phone]"), ("Tel.+49170123456", "Tel.[phone]"),
        ("+49 30 1234567 20240101 99", "[phone] 20240101 99"), ("+1 (555) 123-4567", "[phone]"),
    ],
)  # fmt: skip
def test_addresses_and_numbers_are_found_whatever_stands_beside_them(text: str, expected: str):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30:45 on 2026-11-30", "version 1.2.3 of 4.5.6.7.8", "999.1.1.1", "4111 1111 1111 1112", "1234567890123456",
        "the @ sign", "a token of esteem", "3.14159265358979", "C++ :: scope", "100000 rows in 2026",
        "std::add::x", "from 12:30:45: x", "12 34 56 78 90 11 22 33 44 55 66 77", "aa:bb:cc:dd:ee:ff",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_stays(text: str):
    assert redacted(text) == text


@given(digits=st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_exactly_one_last_digit_makes_a_card_of_any_digits(digits: list[int]):
    body = "".join(map(str, digits))
    assert sum(list(cards(f"{body}{last}")) == [(0, len(body) + 1)] for last in range(10)) == 1


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
    "letter",
    [
        *"a1 .:@-_(/+A\n\"='", "eyJ", "-eyJ", "-eyJ-", "-eyJaaaaaaaa", "-eyJaaaaaaaa.", "sk-", "sk-aaaa ",
        "-----BEGIN ", "-----BEGIN PRIVATE KEY", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----END ",
        "1.1.", "a@a.", "a'", "a@a-", "::", ":a:", "a:", "4 ", "4111 ", "411 ",
        "token=", "token_", "token-a", 'token="', "token    ", "bearer ", "bearer a ", "+0(((",
    ],
)  # fmt: skip
def test_the_built_in_patterns_are_linear(letter: str):
    """No client can exempt its prompt: the longest text there is, of what each repeats, is within the time by default."""
    text = (letter * (2**18))[: 2**18 + REDACTION_MARGIN] + "!"
    assert len(GENERAL(text, len(text))[0]) <= 2 * len(text)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"\b", "a b: 12 ca"), ("(?=a)", "a b: 12 ca"), (r"(?<=: )\d*", "a b: [z] ca"), (r"(?<=c)x*", "a b: 12 ca")],
)
def test_a_find_of_nothing_replaces_nothing(pattern: str, expected: str):
    general, _ = redactors(TextConfig(redact=(RedactPattern("z", pattern),)))
    text = "a b: 12 ca"
    assert general(text, 100) == (expected, {"z": 1} if expected != text else {})


@pytest.mark.parametrize("sent", [90, 400, 512, 1000, 1512])
def test_what_the_front_end_cut_shorter_than_the_limit_here_ends_before_the_margin(sent: int):
    """The two sides may have files of their own: what ends a text that was cut there may be half of something."""
    card = "4111 1111 1111 1111"
    text = "." * (sent - 12) + card + "." * 2000
    row = keeper().kept(text_frame(text[:sent], chars=len(text)))
    assert set(opened(row)) <= {"."}
    assert row.kept_chars == max(sent - REDACTION_MARGIN, 0)


@pytest.mark.parametrize(("pattern", "message"), [("(", "missing"), ("a*", "where there is nothing")])
def test_a_pattern_that_cannot_be_used_is_refused_at_the_start(pattern: str, message: str):
    with pytest.raises(ConfigError, match=f"bad.*{message}"):
        redactors(TextConfig(redact=(RedactPattern("bad", pattern),)))
