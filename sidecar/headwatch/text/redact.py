"""Redaction: patterns, each within a time of its own; a text that cannot be redacted in time is not kept.

The library ``regex`` looks at its clock while it matches, and lets other threads run meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import regex

from headwatch.errors import ConfigError, TextError
from headwatch.text.patterns import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from headwatch.config import RedactPattern, TextConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled pattern."""

    name: str
    pattern: regex.Pattern[str]
    replacement: str
    ones: Callable[[str], Iterable[tuple[int, int]]] = lambda found: ((0, len(found)),)
    """Where in a find the ones are."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """The built-in patterns, which all see the text as it came, and one's own, each of which sees what the one before left."""

    built_in: tuple[Rule, ...]
    own: tuple[Rule, ...]
    seconds: float
    """That each pattern may take over one text."""

    def __call__(self, text: str, limit: int) -> tuple[str, dict[str, int]]:
        """Return what becomes of the first *limit* characters of *text*, and how often each pattern found something in them.

        What begins before the limit is replaced whole, as far as *text* shows it.

        Raises:
            TextError: With reason ``pattern_timeout``; the message names the pattern and shows nothing of the text.
        """
        found: Counter[str] = Counter()
        for rules in (self.built_in, *((rule,) for rule in self.own)):
            spans = _merged([(*span, rank) for rank, rule in enumerate(rules) for span in self._spans(rule, text)])
            text, limit = _replaced(text, limit, spans, rules, found)
        return text[:limit], dict(found)

    def _spans(self, rule: Rule, text: str) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what *rule* finds; a find of nothing is none."""
        try:
            for match in rule.pattern.finditer(text, timeout=self.seconds):
                offset = match.start()
                yield from ((offset + start, offset + end) for start, end in rule.ones(match.group()) if start < end)
        except TimeoutError:
            raise TextError("pattern_timeout", f"text.redact: {rule.name} took longer than {self.seconds:g} s") from None


def _merged(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return (start, end, rank) of *spans* in order, those that overlap as one of the lowest rank."""
    merged: list[tuple[int, int, int]] = []
    for start, end, rank in sorted(spans):
        if merged and start < merged[-1][1]:
            before = merged[-1]
            merged[-1] = (before[0], max(before[1], end), min(before[2], rank))
        else:
            merged.append((start, end, rank))
    return merged


def _replaced(
    text: str, limit: int, spans: list[tuple[int, int, int]], rules: Sequence[Rule], found: Counter[str]
) -> tuple[str, int]:
    """Return *text* with *spans* replaced and where *limit* comes to lie; count in *found* what begins before it."""
    parts, done, moved = [], 0, limit
    for start, end, rank in spans:
        replacement = rules[rank].replacement
        parts += [text[done:start], replacement]
        done = end
        if start < limit:
            found[rules[rank].name] += 1
            moved += len(replacement) - (min(end, limit) - start)
    return "".join([*parts, text[done:]]), moved


def redactors(config: TextConfig) -> tuple[Redactor, dict[str, Redactor]]:
    """Return what is applied to texts in general, and by route where a route has patterns of its own.

    Raises:
        ConfigError: A pattern cannot be compiled, or finds something in an empty text.
    """
    built_in = tuple(
        Rule(name, regex.compile(built.pattern), built.replacement, built.ones)
        for name, built in BUILT_IN.items() if name in config.builtin
    )  # fmt: skip
    own = _compiled("text.redact", config.redact)
    routes = {
        route: Redactor(built_in, (*own, *_compiled(f"text.routes.{route}.redact", given.redact)), config.pattern_seconds)
        for route, given in config.routes.items() if given.redact
    }  # fmt: skip
    return Redactor(built_in, own, config.pattern_seconds), routes


def _compiled(setting: str, patterns: Sequence[RedactPattern]) -> tuple[Rule, ...]:
    rules = []
    for given in patterns:
        try:
            compiled = regex.compile(given.pattern)
        except regex.error as error:
            raise ConfigError(f"{setting}: {given.name}: {error}") from error
        if compiled.fullmatch("") is not None:
            raise ConfigError(f"{setting}: {given.name} matches where there is nothing; it would stand between all characters")
        replacement = f"[{given.name}]" if given.replacement is None else given.replacement
        rules.append(Rule(given.name, compiled, replacement))
    return tuple(rules)
