"""Redaction: patterns in turn, each within a time of its own; a text that cannot be redacted in time is not kept.

The library ``regex`` looks at its clock while it matches, and lets other threads run meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import regex

from headwatch.errors import ConfigError, TextError
from headwatch.text.patterns import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headwatch.config import RedactPattern, TextConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled pattern."""

    name: str
    pattern: regex.Pattern[str]
    replacement: str
    is_one: Callable[[str], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Redactor:
    """Patterns in the order in which they are applied."""

    rules: tuple[Rule, ...]
    seconds: float
    """That each pattern may take over one text."""

    def __call__(self, text: str, limit: int) -> tuple[str, dict[str, int]]:
        """Return what becomes of the first *limit* characters of *text*, and how often each pattern found something in them.

        What begins before the limit is replaced whole, as far as *text* shows it.

        Raises:
            TextError: With reason ``pattern_timeout``; the message names the pattern and shows nothing of the text.
        """
        found: dict[str, int] = {}
        for rule in self.rules:
            replacing = _Replacing(rule, limit)
            try:
                text = rule.pattern.sub(replacing, text, timeout=self.seconds)
            except TimeoutError:
                raise TextError("pattern_timeout", f"text.redact: {rule.name} took longer than {self.seconds:g} s") from None
            limit = replacing.limit
            if replacing.count:
                found[rule.name] = replacing.count
        return text[:limit], found


class _Replacing:
    """Replaces what passes the second look, counts, and follows where the limit comes to lie."""

    def __init__(self, rule: Rule, limit: int) -> None:
        self._rule = rule
        self._before = limit
        self.limit = limit
        self.count = 0

    def __call__(self, match: Any) -> str:
        found: str = match.group()
        if not self._rule.is_one(found):
            return found
        start, end = match.span()
        if start < self._before:
            self.count += 1
            self.limit += len(self._rule.replacement) - (min(end, self._before) - start)
        return self._rule.replacement


def redactors(config: TextConfig) -> tuple[Redactor, dict[str, Redactor]]:
    """Return what is applied to texts in general, and by route where a route has patterns of its own.

    Raises:
        ConfigError: A pattern cannot be compiled, or finds nothing in every place.
    """
    general = [
        Rule(name, regex.compile(built.pattern), built.replacement, built.is_one)
        for name, built in BUILT_IN.items() if name in config.builtin
    ]  # fmt: skip
    general += _compiled("text.redact", config.redact)
    routes = {
        route: _redactor([*general, *_compiled(f"text.routes.{route}.redact", own.redact)], config)
        for route, own in config.routes.items() if own.redact
    }  # fmt: skip
    return _redactor(general, config), routes


def _redactor(rules: Iterable[Rule], config: TextConfig) -> Redactor:
    return Redactor(tuple(rules), config.pattern_seconds)


def _compiled(setting: str, patterns: Sequence[RedactPattern]) -> list[Rule]:
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
    return rules
