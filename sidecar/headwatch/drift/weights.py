"""How much each part counts on a clock: fixed when a baseline is put in force, and summing to one at most.

Heads and signals share the clock by :data:`SHARES`; strata share that of the heads, scopes that of the signals.  Within a part
its families share by their own weights (those of heads are in :mod:`headwatch.drift.clock`), and its features or signals.
Where a baseline has no scopes the heads have it all.  An operator may give each family a weight (``drift.family_weights``), the
strata and scopes of a route (``drift.route_weights``) and a feature or signal (``drift.feature_weights``); what is not named
keeps its default, which for routes and features is 1.  Only proportions matter::

    part = (1 - reserve) * kind's families / all families * route / sum of route over the parts of the kind
    feature = weight / sum of weights over the features of the part

Newcomers live on the reserve of :mod:`headwatch.drift.clock`, times their route's weight over the largest one.

Any weights keep the promise, as long as they were fixed before the evidence: they only decide which change is found sooner.
So where they differ from those of the life before, evidence begins anew.

Families in shadow (``drift.shadow_families``) have a clock of their own with the weights that they would have had on the
pager's, which is for the others as if those weights were 0.

Cost: once a baseline.
Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors", arXiv 2203.03532 (averages of e-detectors are e-detectors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.drift.clock import DEFAULT_FAMILIES, RESERVE, newcomer_weight
from headwatch.drift.signals import SIGNALS
from headwatch.errors import ConfigError
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headwatch.config import DriftConfig
    from headwatch.drift.parts import Key, Kind

SHARES: Mapping[Kind, float] = {"heads": 0.6, "signal": 0.4}
SIGNAL_FAMILIES: Mapping[str, float] = {"signals.mean": 0.8, "signals.spread": 0.2}


class Weights(msgspec.Struct, frozen=True):
    """What is fixed beforehand of one clock."""

    families: dict[str, dict[str, float]]
    """By kind of part, those that count on this clock."""
    routes: dict[str, float] = {}
    features: dict[str, float] = {}

    def of_parts(self, newcomers: Mapping[Key, int], routes: Mapping[Key, str]) -> dict[Key, float]:
        """Return the weight of every part.

        *newcomers* says for each 0, or in which order (1, 2, …) it came later; *routes* of which route each is.
        """
        largest = max([1.0, *self.routes.values()])
        own = {key: self.routes.get(routes[key], 1.0) for key in newcomers}
        together: dict[str, float] = {}
        for key, order in newcomers.items():
            if not order:
                together[key.kind] = together.get(key.kind, 0.0) + own[key]
        totals = {kind: sum(self.families[kind].values()) for kind, weight in together.items() if weight}
        everything = sum(totals.values())
        return {
            key: newcomer_weight(order) * (own[key] / largest) if order
            else (1.0 - RESERVE) * (totals[key.kind] / everything) * (own[key] / together[key.kind])
            if everything and key.kind in totals else 0.0
            for key, order in newcomers.items()
        }  # fmt: skip

    def of_features(self, names: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the weights of the features or signals *names* of a part, [F]; None where they are all equal.

        They sum to 1, or to 0 where every one is 0.
        """
        given = [self.features.get(name, self.features.get(name.partition(".")[0], 1.0)) for name in names]
        total = sum(given)
        return None if len(set(given)) == 1 and total else np.array(given) / (total or 1.0)


def clocks(config: DriftConfig) -> tuple[Weights, Weights | None]:
    """Return the weights of the pager's clock, and those of the clock of families in shadow; None where there are none.

    Raises:
        ConfigError: There is no such family or feature, or nothing is left that could page.
    """
    families = family_weights(config.family_weights)
    known = [name for own in families.values() for name in own]
    _refuse("drift.shadow_families", "family", config.shadow_families, known)
    _refuse("drift.feature_weights", "feature or signal", (name.partition(".")[0] for name in config.feature_weights),
            [*DRIFT_FEATURES, *SIGNALS])  # fmt: skip
    hidden = set(config.shadow_families)
    pager, shadow = (
        {str(kind): {name: own[name] for name in own if (name in hidden) is chosen} for kind, own in families.items()}
        for chosen in (False, True)
    )
    routes, features = dict(config.route_weights), dict(config.feature_weights)
    if not _total(pager):
        raise ConfigError("drift.shadow_families: no other family has a weight, so nothing could page; drift.shadow does that")
    if hidden and not _total(shadow):
        raise ConfigError("drift.shadow_families: drift.family_weights gives each of them 0, so none would be judged")
    return Weights(pager, routes, features), Weights(shadow, routes, features) if hidden else None


def family_weights(given: Mapping[str, float]) -> dict[Kind, dict[str, float]]:
    """Return the weight of every family by kind of part, with those that an operator has *given* in place of the defaults.

    Raises:
        ConfigError: There is no such family, or nothing is left.
    """
    weights: dict[Kind, dict[str, float]] = {
        "heads": {name: SHARES["heads"] * weight for name, weight in DEFAULT_FAMILIES.items()},
        "signal": {name: SHARES["signal"] * weight for name, weight in SIGNAL_FAMILIES.items()},
    }
    _refuse("drift.family_weights", "family", given, [*DEFAULT_FAMILIES, *SIGNAL_FAMILIES])
    for name, weight in given.items():
        kind: Kind = "signal" if name in SIGNAL_FAMILIES else "heads"
        weights[kind][name] = SHARES[kind] * weight
    if not _total(weights):
        raise ConfigError("drift.family_weights: every weight is 0, so nothing could page")
    return weights


def _refuse(setting: str, what: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"{setting}: there is no {what} {name!r}; known: {', '.join(known)}")


def _total(families: Mapping[Kind, Mapping[str, float]] | Mapping[str, Mapping[str, float]]) -> float:
    return sum(sum(own.values()) for own in families.values())
