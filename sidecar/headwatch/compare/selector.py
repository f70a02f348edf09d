"""How a side is written: ``PLACE``, ``PLACE[revision=abc]``, ``PLACE[model=x,adapter=y]@RANGE``.

PLACE is a file, ``live``, ``requests`` or ``arm:NAME``.  A key that is not named stands for all; ``adapter=`` with nothing
behind it for requests without an adapter.  RANGE is read in :mod:`headwatch.compare.ranges`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from headwatch.errors import ConfigError
from headwatch.records import Selection

KEYS = ("model", "revision", "adapter")
_SIDE = re.compile(r"(?P<place>.+?)(?:\[(?P<chosen>[^\[\]]*)\])?(?:@(?P<part>(?:before|after):.+|[^@]*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Selector:
    """One side as it was written."""

    text: str
    place: str
    selection: Selection = field(default_factory=Selection)
    part: str | None = None
    """What stands behind the ``@``; None where there is none."""


def parse_selector(text: str) -> Selector:
    """Return what *text* names; a file of that very name goes before everything else.

    Raises:
        ConfigError: What stands in brackets is no key that is known with a value, or one twice.
    """
    found = _SIDE.fullmatch(text)
    if found is None or Path(text).exists():
        return Selector(text, text)
    selection = Selection() if found["chosen"] is None else _selection(found["chosen"], text)
    return Selector(text, found["place"], selection, found["part"])


def _selection(chosen: str, text: str) -> Selection:
    given: dict[str, str] = {}
    for word in chosen.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or key not in KEYS or key in given:
            raise ConfigError(f"{text!r}: in brackets stand {', '.join(f'{known}=…' for known in KEYS)}, each once at most, "
                              f"and not {word.strip()!r}")  # fmt: skip
        given[key] = value
    return Selection(**given)
