"""The built-in patterns: what is replaced by the name of its kind.  Best effort, and said so in docs/text-capture.md.

Each is written so that it cannot run away: repetitions are bounded or possessive.  A pattern alone takes too much of what only
looks like a card or an address, so some have a second look: the Luhn check, the parser of IP addresses, the count of digits.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config.text import BuiltIn

_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(7, 16)


@dataclass(frozen=True, slots=True)
class BuiltInPattern:
    """A pattern, its replacement, and the second look at what it finds."""

    pattern: str
    replacement: str
    is_one: Callable[[str], bool] = lambda _: True


def is_card(found: str) -> bool:
    """Return whether the digits of *found* are as many as a card's and pass the Luhn check (ISO/IEC 7812-1)."""
    digits = [int(character) for character in found if character.isdigit()]
    if len(digits) not in _CARD_DIGITS:
        return False
    doubled = [2 * digit - 9 * (2 * digit > 9) if place % 2 else digit for place, digit in enumerate(reversed(digits))]  # noqa: PLR2004
    return sum(doubled) % 10 == 0


def is_address(found: str) -> bool:
    """Return whether *found* is an IP address that says something: a time of day is none, ``::`` stands in programs."""
    try:
        return bool(int(ipaddress.ip_address(found)))
    except ValueError:
        return False


def is_phone(found: str) -> bool:
    """Return whether *found* has as many digits as a phone number (ITU-T E.164 allows 15)."""
    return sum(character.isdigit() for character in found) in _PHONE_DIGITS


BUILT_IN: dict[BuiltIn, BuiltInPattern] = {
    "email": BuiltInPattern(
        r"(?<![\p{L}\p{N}._%+\-])[\p{L}\p{N}._%+\-]{1,64}+@(?:[\p{L}\p{N}\-]{1,63}\.){1,8}\p{L}{2,24}", "[email]"
    ),
    "key": BuiltInPattern(
        r"""(?x)
        -----BEGIN\ [A-Z\ ]{0,32}PRIVATE\ KEY-----[\s\S]{0,8192}?(?:-----END\ [A-Z\ ]{0,32}PRIVATE\ KEY-----|\Z)
        | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
        | \b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|pk-|rk_live_|sk_live_|xox[abeoprs]-|AIza|npm_|pypi-)[A-Za-z0-9_\-]{16,512}+
        | \beyJ[A-Za-z0-9_\-]{8,4096}+(?:\.[A-Za-z0-9_\-]{0,8192}+){1,2}
        | (?i:\bbearer\ {1,4})[A-Za-z0-9._~+/\-]{16,4096}+=*
        | (?i:\b(?:api[_\-\ ]?key|access[_\-]?key|secret|password|passwd|pwd|token)\b)
          ["']?\s{0,4}[:=]\s{0,4}["']?[^\s"',;]{4,512}+
        """,
        "[key]",
    ),
    "ip": BuiltInPattern(
        r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|\d{1,3}(?:\.\d{1,3}){3}))(?![\w:]|\.\d)",
        "[ip]", is_address,
    ),
    "card": BuiltInPattern(r"(?<![\d])(?:\d[ \-]?){12,18}\d(?!\d)", "[card]", is_card),
    "phone": BuiltInPattern(
        r"(?<![\w.+\-/])(?:\+ ?|0|\(\+?)\d(?:[ ().\-/]{0,3}\d){5,17}(?![\w]|[.\-]\d)", "[phone]", is_phone
    ),
}  # fmt: skip
"""In the order in which they are applied: a card's digits are no phone number any more when phones are looked for."""
