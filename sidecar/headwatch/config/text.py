"""The text of prompts: whether any leaves vLLM's process, of which routes, redacted how, sealed with what, kept how long.

vLLM's front end and the sidecar read the same section.  The front end sends what its own section keeps; the sidecar keeps of
that what its own does, and throws everything away while it is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from headwatch.config.kinds import Rate, RouteName, Seconds

LARGEST_CHARS = 1 << 18
"""Of one text: also the bound of what the wire takes."""
REDACTION_MARGIN = 512
"""Characters that are looked at beyond the limit and never kept: what a limit would cut in half is still recognised."""

Chars = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_CHARS)]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]
Variable = Annotated[str, msgspec.Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
BuiltIn = Literal["email", "ip", "card", "key", "phone"]


class RedactPattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is replaced wherever it is found in a text."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{1,32}$")]
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """As the library ``regex`` reads it."""
    replacement: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    """Put in its place as it stands.  Not given: the name in brackets."""


class TextRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one route is treated; what is not given is as for every other route."""

    keep: bool | None = None
    sample_rate: Rate | None = None
    max_chars: Chars | None = None
    ttl_days: Days | None = None
    redact: tuple[RedactPattern, ...] = ()
    """Further patterns, behind those of every route."""


@dataclass(frozen=True, slots=True)
class TextRule:
    """What holds for the texts of one route."""

    keep: bool
    sample_rate: float
    max_chars: int
    ttl_days: int


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text of prompts: see docs/text-capture.md."""

    enabled: bool = False
    """Whether text of prompts is kept at all."""
    default: Literal["none", "keep"] = "none"
    """What becomes of routes that are not named below."""
    sample_rate: Rate = 1.0
    """Share of the sampled requests whose text is kept."""
    max_chars: Chars = 8192
    """Of each prompt, from its beginning."""
    builtin: tuple[BuiltIn, ...] = ("email", "ip", "card", "key", "phone")
    """Built-in patterns that are on."""
    redact: tuple[RedactPattern, ...] = ()
    """Patterns of one's own, behind the built-in ones."""
    pattern_seconds: Seconds = 1.0
    """A pattern that takes longer over one text: the text is not kept."""
    hook: Annotated[str, msgspec.Meta(pattern=r"^$|^[\w.]+:\w+$")] = ""
    """``module:function`` that gets each redacted text and returns what to keep of it, or None; empty: there is none."""
    hook_seconds: Seconds = 1.0
    """A hook that takes longer: the text is not kept."""
    ttl_days: Days = 3
    key_env: Variable = "HEADWATCH_TEXT_KEY"
    """Environment variable with the key, from ``headwatch text key``.  The sidecar needs it, vLLM does not."""
    old_keys_env: Variable = "HEADWATCH_TEXT_OLD_KEYS"
    """Environment variable with earlier keys, separated by spaces or commas: ``headwatch text show`` reads with them."""
    routes: dict[RouteName, TextRoute] = {}
    """Routes (as the request field names them) that are treated otherwise."""

    def rule(self, route: str) -> TextRule:
        """Return what holds for *route*."""
        own = self.routes.get(route, TextRoute())
        return TextRule(
            keep=self.enabled and (self.default == "keep" if own.keep is None else own.keep),
            sample_rate=self.sample_rate if own.sample_rate is None else own.sample_rate,
            max_chars=self.max_chars if own.max_chars is None else own.max_chars,
            ttl_days=self.ttl_days if own.ttl_days is None else own.ttl_days,
        )
