"""The built-in patterns: what is replaced by the name of its kind.  Best effort, and said so in docs/text-capture.md.

Each takes time that is linear in the text: a repetition is bounded, or possessive and entered only where what it repeats
begins.  A client could otherwise send a prompt whose patterns run out of time.  A pattern alone takes too much of what
only looks like a card or an address, so some have a second look, which says what of a find is one: the Luhn check, the parser
of IP addresses.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwatch.config.text import BuiltIn

_CARD_DIGITS = range(13, 20)
_LEAST_GROUP = 3
"""Digits of each group of a card among other numbers: with shorter ones a table of numbers would be full of cards."""
_MOST_GROUPS = _CARD_DIGITS.stop // _LEAST_GROUP
_FIRST_DIGITS = range(2, 7)
"""Of payment cards (ISO/IEC 7812-1, major industry identifiers)."""
_GROUP = regex.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class BuiltInPattern:
    """A pattern, its replacement, and the second look: where in a find the ones are, as (start, end) in it."""

    pattern: str
    replacement: str
    ones: Callable[[str], Iterable[tuple[int, int]]] = lambda found: ((0, len(found)),)


def cards(found: str) -> Iterable[tuple[int, int]]:
    """Yield where cards are in *found*, by their digits' count and the Luhn check (ISO/IEC 7812-1).

    The whole of it where that is one, and otherwise all runs of its groups of digits that are one.
    """
    digits = [int(character) for character in found if character.isdigit()]
    sums = [
        list(accumulate((_doubled(digit) if place % 2 == odd else digit for place, digit in enumerate(digits)), initial=0))
        for odd in (0, 1)
    ]

    def passes(first: int, stop: int) -> bool:
        """Return whether ``digits[first:stop]`` are a card's: every second one before the last counts twice."""
        return stop - first in _CARD_DIGITS and (sums[stop % 2][stop] - sums[stop % 2][first]) % 10 == 0

    if passes(0, len(digits)):
        yield 0, len(found)
        return
    groups = [match.span() for match in _GROUP.finditer(found)]
    first = 0
    for number, (start, end) in enumerate(groups):
        if digits[first] in _FIRST_DIGITS:
            stop = first
            for begin, last in groups[number : number + _MOST_GROUPS]:
                stop += last - begin
                if last - begin < _LEAST_GROUP or stop - first >= _CARD_DIGITS.stop:
                    break
                if passes(first, stop):
                    yield start, last
        first += end - start


def addresses(found: str) -> Iterable[tuple[int, int]]:
    """Yield the IP address in *found*, which may have a label or a port on either side.

    Only one that says something: a time of day is none, and ``::`` stands in programs.
    """
    end = len(found.rstrip("."))
    for start, stop in ((0, end), (0, found.rfind(":", 0, end)), (found.find(":") + 1, end)):
        if is_address(found[start : max(stop, 0)]):
            yield start, stop
            return


def is_address(found: str) -> bool:
    """Return whether *found* is an IP address, and not the one of zeros."""
    try:
        return bool(int(ipaddress.ip_address(found)))
    except ValueError:
        return False


def _doubled(digit: int) -> int:
    return 2 * digit - 9 * (2 * digit > 9)  # noqa: PLR2004 - the sum of the digits of twice *digit*


BUILT_IN: dict[BuiltIn, BuiltInPattern] = {
    "email": BuiltInPattern(
        r"""(?x)
        (?<![\p{L}\p{M}\p{N}._%+\-])[\p{L}\p{M}\p{N}._%+\-]++(?:['\u2019][\p{L}\p{M}\p{N}._%+\-]++){0,4}+
        @(?:[\p{L}\p{M}\p{N}_\-]{1,63}+\.){1,32}[\p{L}\p{M}]{2,32}
        """,
        "[email]",
    ),
    "key": BuiltInPattern(
        r"""(?x)
        -----BEGIN\ [A-Z0-9\ ]{0,32}PRIVATE\ KEY(?:\ BLOCK)?-----
          (?:[^\-]++|-(?!----END\ ))*+(?:-----END\ [A-Z0-9\ ]{0,64}-----)?
        | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
        | \b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|pk-|rk_live_|sk_live_|xox[abeoprs]-|AIza|npm_|pypi-)[A-Za-z0-9_\-]{16,}+
        | (?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]{8,}+(?:\.[A-Za-z0-9_\-]*+){1,4}
        | (?i:\bbearer\ {1,4})[A-Za-z0-9._~+/\-]{16,}+=*+
        | (?i:api[_\-\ ]?key|access[_\-]?key|private[_\-]?key|secret|password|passwd|passphrase|pwd|token)
          (?:[_\-][A-Za-z0-9]{1,32}+){0,4}+\\?["']?\s{0,4}[:=]\s{0,4}
          (?:"(?:[^"\\\n]|\\.)++"? | '(?:[^'\\\n]|\\.)++'? | \\"[^"\n]++"? | [^\s"']\S{3,}+)
        """,
        "[key]",
    ),
    "ip": BuiltInPattern(
        r"""(?x)
        (?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)
        | (?:(?<![\w.:])|(?<=\w:)(?<!::))[0-9A-Fa-f]{0,16}+:[0-9A-Fa-f]{0,4}+:[0-9A-Fa-f:.]{0,64}+(?!\w)
        """,
        "[ip]", addresses,
    ),
    "card": BuiltInPattern(r"(?<!\d)\d(?:[\s.\u2010-\u2015\-]{0,2}\d){12,}+", "[card]", cards),
    "phone": BuiltInPattern(
        r"""(?x)
        (?:(?<![\w+])\+[\ \u00a0]?\d|(?<![\w.+\-/])(?:0|\(\+?\d))
        (?:[\ \u00a0\u2007\u2009\u202f().\-/\u2010-\u2015]{0,3}\d){6,14}(?![\w]|[.\-\u2010-\u2015]\d)
        """,
        "[phone]",
    ),
}  # fmt: skip
"""Where finds of several overlap, all of it is replaced by the name of the first of them here.

A phone number has 7 to 15 digits (ITU-T E.164).
"""
