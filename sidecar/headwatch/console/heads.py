"""Heads over hours and months, through the API: which windows, in which shape, and within what bounds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from headwatch.console.parameters import Parameters, refuse
from headwatch.model import VALUE_FEATURES, WINDOW_FEATURES
from headwatch.records import HeadScope

if TYPE_CHECKING:
    from headwatch.console.view import Reader

KNOWN = (
    "feature", "from", "to", "step", "quantiles", "service", "instance", "model", "stratum", "route", "phase", "layer", "head",
)  # fmt: skip
MAX_STEPS = 1500
"""Points of a course."""
MAX_WINDOWS = 15_000
"""Windows of one head that a course may be made of."""
MAX_QUANTILES = 9
MAX_RANGE_SECONDS = 400 * 86_400
MIN_STEP_SECONDS = 60
RUNG_SECONDS = (86_400, 3600, 600, 60)
"""How long the windows are that are kept; a course is made of the longest that divide its step."""
_DEFAULT_RANGE_SECONDS = 3600
_MAX_SECONDS = 2**32 - 1
_U16 = 2**16 - 1


def head_history(reader: Reader, given: Parameters) -> dict[str, Any]:
    """Return what the store holds of the heads that *given* means.

    Raises:
        HTTPException: 400: a parameter is wrong.
        StoreError: The store is away.
    """
    last = given.integer("to", int(time.time()), 1, _MAX_SECONDS)
    first = given.integer("from", max(last - _DEFAULT_RANGE_SECONDS, 0), 0, _MAX_SECONDS)
    if not 0 < last - first <= MAX_RANGE_SECONDS:
        refuse(f"from={first}, to={last}: give a range of at most {MAX_RANGE_SECONDS} seconds that is not empty")
    step = given.integer("step", 0, 0, MAX_RANGE_SECONDS)
    if step and step % MIN_STEP_SECONDS:
        refuse(f"step={step}: give a multiple of {MIN_STEP_SECONDS} seconds")
    if step and (last - first) / step > MAX_STEPS:
        refuse(f"step={step}: a course of {(last - first) / step:.0f} points; at most {MAX_STEPS} are given")
    if step:
        _bound(last - first, step)
    scope = HeadScope(
        given.choice("feature", (*WINDOW_FEATURES, *VALUE_FEATURES), "lookback"), first, last, given.optional("service"),
        given.optional("instance"), given.optional("model"), given.optional("stratum"), given.optional("route"),
        given.optional("phase"), _number(given, "layer"), _number(given, "head"),
    )  # fmt: skip
    quantiles = _quantiles(given)
    return {"feature": scope.feature, "from": first, "to": last, "step": step or None, "quantiles": quantiles or None,
            "rows": reader.head_history(scope, step, quantiles)}  # fmt: skip


def _bound(range_seconds: int, step: int) -> None:
    """Refuse a step that only short windows divide, over a range in which there are many."""
    rung = next(one for one in RUNG_SECONDS if step % one == 0)
    if range_seconds / rung > MAX_WINDOWS:
        longer = min(one for one in RUNG_SECONDS if range_seconds / one <= MAX_WINDOWS)
        refuse(f"step={step}: {range_seconds // rung} windows of {rung} seconds; give a multiple of {longer} seconds")


def _number(given: Parameters, name: str) -> int | None:
    return None if given.optional(name) is None else given.integer(name, 0, 0, _U16)


def _quantiles(given: Parameters) -> list[float]:
    texts = [text for text in given.text("quantiles").split(",") if text]
    try:
        quantiles = [float(text) for text in texts]
    except ValueError:
        quantiles = [-1.0]
    if len(quantiles) > MAX_QUANTILES or not all(0.0 <= one <= 1.0 for one in quantiles):
        refuse(f"quantiles={given.text('quantiles')!r}: give at most {MAX_QUANTILES} numbers from 0 to 1, as in 0.1,0.5,0.9")
    return quantiles
