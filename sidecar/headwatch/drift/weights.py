"""How much each part counts on the one clock: fixed when a baseline is put in force, and summing to one.

Heads and signals share the clock by :data:`SHARES`, strata share that of the heads equally, scopes that of the signals.  Within
a part its families share by their own weights (those of heads are in :mod:`headwatch.drift.clock`), features and signals
equally.  Where a baseline has no scopes the heads have it all.  What is named in ``drift.family_weights`` replaces a default;
only the proportions matter.  Newcomers live on the reserve of :mod:`headwatch.drift.clock`.

Any weights keep the promise, as long as they were fixed before the evidence: they only decide which change is found sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.drift.clock import DEFAULT_FAMILIES, RESERVE, newcomer_weight
from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.drift.parts import Key, Kind

SHARES: Mapping[Kind, float] = {"heads": 0.6, "signal": 0.4}
SIGNAL_FAMILIES: Mapping[str, float] = {"signals.mean": 0.8, "signals.spread": 0.2}


def family_weights(given: Mapping[str, float]) -> dict[Kind, dict[str, float]]:
    """Return the weight of every family by kind of part, with those that an operator has *given* in place of the defaults.

    Raises:
        ConfigError: There is no such family, or nothing is left.
    """
    weights: dict[Kind, dict[str, float]] = {
        "heads": {name: SHARES["heads"] * weight for name, weight in DEFAULT_FAMILIES.items()},
        "signal": {name: SHARES["signal"] * weight for name, weight in SIGNAL_FAMILIES.items()},
    }
    for name, weight in given.items():
        kind: Kind = "signal" if name in SIGNAL_FAMILIES else "heads"
        if name not in weights[kind]:
            known = ", ".join([*DEFAULT_FAMILIES, *SIGNAL_FAMILIES])
            raise ConfigError(f"drift.family_weights: there is no family {name!r}; known: {known}")
        weights[kind][name] = weight
    if not sum(sum(families.values()) for families in weights.values()):
        raise ConfigError("drift.family_weights: every weight is 0, so nothing could page")
    return weights


def part_weights(newcomers: Mapping[Key, int], families: Mapping[Kind, Mapping[str, float]]) -> dict[Key, float]:
    """Return the weight of every part; *newcomers* says for each 0, or in which order (1, 2, …) it came later."""
    founders = [key for key, order in newcomers.items() if not order]
    totals = {kind: sum(families[kind].values()) for kind in {key.kind for key in founders}}
    together = sum(totals.values())
    return {
        key: newcomer_weight(order) if order else (1.0 - RESERVE) * _share(totals, together, key.kind, founders)
        for key, order in newcomers.items()
    }


def _share(totals: Mapping[Kind, float], together: float, kind: Kind, founders: Iterable[Key]) -> float:
    count = sum(key.kind == kind for key in founders)
    return totals[kind] / together / count if together else 0.0
