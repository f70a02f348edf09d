"""What is asked, counted window by window, and what of it is usual: sums over windows that add up.

Windows of earlier versions of headwatch count no models, adapters and versions of templates.  Their shares are taken over
windows that count them alone, so that an upgrade is no change.

A mean over windows is unsure by what windows differ by, but only as much of that averages out as neighbours differ by (von
Neumann's mean square successive difference): what moves slowly, as from day to night, does not average out over an hour.

Reference: J. von Neumann, Distribution of the ratio of the mean square successive difference to the variance, 1941.

Cost: counts by name, at most ``MAX_NAMES`` of each kind; a baseline is a handful of numbers for each.
"""

from __future__ import annotations

from collections import defaultdict
from math import log2, sqrt
from typing import TYPE_CHECKING, TypeVar

import msgspec

from headwatch.bands import context_band
from headwatch.drift.signals.read import asked_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headwatch.observed import ObservedWindow
    from headwatch.records import RequestRecord

MAX_NAMES = 64
"""Names of one kind in a window; what is rarer counts under ``other``."""
KINDS = {
    "route": "mix of routes", "language": "mix of languages", "band": "lengths", "model": "mix of models",
    "adapter": "mix of adapters", "template_version": "mix of template versions",
}  # fmt: skip
USUAL = 0.5
"""A digest is a route's usual one from this share on."""
_NEWER = frozenset({"model", "adapter", "template_version"})
"""Kinds that windows of earlier versions do not count.  Every request has a model, so a window that counts them has one."""
_HELD = 0.9
"""Of the baseline's windows with requests of the route, in which its usual digest was seen."""
_STILL = 10
"""Windows before the end of the baseline in which it was seen as well."""
_MOST_KEPT = MAX_NAMES * 8
_Figure = TypeVar("_Figure", float, tuple[int, int])


def traffic_of(records: Sequence[RequestRecord]) -> dict[str, float]:
    """Return counts of the requests that ended in a window, each as often as it stands for.

    ``requests``, ``prompt_tokens``, ``prompt_log2`` (sum of log2 of the prompt's tokens), ``asked_log2`` (the same of the
    tokens that are no document's), ``route:<name>``, ``language:<name>``, ``band:<band of the prompt>``,
    ``model:<served name>``, ``adapter:<name>``, ``template_version:<as the client names it>``,
    ``template:<route>:<digest>``.  What a request does not name is not counted.
    """
    totals = {"requests": 0.0, "prompt_tokens": 0.0, "prompt_log2": 0.0, "asked_log2": 0.0}
    counts: dict[str, dict[str, float]] = {kind: defaultdict(float) for kind in (*KINDS, "template")}
    for record in records:
        context = record.context
        weight, tokens = context.weight, max(context.prompt_tokens, 1)
        totals["requests"] += weight
        totals["prompt_tokens"] += weight * tokens
        totals["prompt_log2"] += weight * log2(tokens)
        totals["asked_log2"] += weight * log2(max(asked_tokens(context), 1))
        counts["route"][context.route] += weight
        counts["band"][context_band(tokens)] += weight
        counts["model"][record.worker.model] += weight
        if context.language:
            counts["language"][context.language] += weight
        if context.adapter:
            counts["adapter"][context.adapter] += weight
        if context.template:
            counts["template_version"][context.template] += weight
        if context.prompt_digest:
            counts["template"][f"{context.route}:{context.prompt_digest}"] += weight
    for kind, by_name in counts.items():
        ranked = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))
        totals |= {f"{kind}:{name}": count for name, count in ranked[:MAX_NAMES]}
        if len(ranked) > MAX_NAMES:
            rest = sum(count for _, count in ranked[MAX_NAMES:])
            totals[f"{kind}:other"] = totals.get(f"{kind}:other", 0.0) + rest
    return totals


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """Sums of a figure and of its square over windows."""

    windows: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> Spread:
        """Return the sums with one more window."""
        return Spread(self.windows + 1, self.total + value, self.squares + value * value)

    def merge(self, other: Spread) -> Spread:
        """Return the sums of both."""
        return Spread(self.windows + other.windows, self.total + other.total, self.squares + other.squares)

    def mean(self) -> float:
        """Return the mean; 0 without windows."""
        return self.total / self.windows if self.windows else 0.0

    def variance(self) -> float:
        """Return the variance of one window."""
        return max(self.squares / self.windows - self.mean() ** 2, 0.0) if self.windows else 0.0


class TrafficBaseline(msgspec.Struct, frozen=True):
    """What traffic usually is: sums over windows, so that two baselines add up; plain JSON by msgspec."""

    windows: int = 0
    requests: float = 0.0
    shares: dict[str, Spread] = {}
    """By name.  A window without the name counts as a share of 0, and is in ``windows`` alone."""
    routes: dict[str, float] = {}
    """Requests of each route that have a template's digest, and ..."""
    templates: dict[str, float] = {}
    """... those that have this one, by ``<route>:<digest>``."""
    length: Spread = Spread()
    """Of a window's mean of log2 of the prompt's tokens."""
    load: Spread = Spread()
    """Of log2 of a window's requests a second."""
    asked: Spread = Spread()
    """As ``length``, of the tokens that are no document's."""
    begins: dict[str, float] = {}
    """Shares and levels of the first window, ..."""
    ends: dict[str, float] = {}
    """... of the last, ..."""
    steps: dict[str, float] = {}
    """... and sums of the squared differences from window to window, by name, ..."""
    pairs: int = 0
    """... of so many windows and their successors; 0: nobody looked."""
    held: dict[str, tuple[int, int]] = {}
    """Windows with a digest, and the number of the last one, by ``<route>:<digest>`` as in ``templates``; ..."""
    asking: dict[str, tuple[int, int]] = {}
    """... and those with any digest, by route."""
    newer_windows: int = 0
    """Windows that count models, adapters and versions of templates, and ..."""
    newer_requests: float = 0.0
    """... their requests."""

    @classmethod
    def learn(cls, windows: Iterable[ObservedWindow]) -> TrafficBaseline:
        """Return the baseline of *windows*; those without requests say nothing."""
        learnt = cls()
        for window in windows:
            if window.traffic.get("requests", 0.0) > 0.0:
                learnt = learnt.merge(of_window(window))
        return learnt

    def merge(self, other: TrafficBaseline) -> TrafficBaseline:
        """Return the baseline of the windows of both, *other* after this one; the most frequent names are kept."""
        if not self.windows or not other.windows:
            return self if self.windows else other
        names = self.shares.keys() | other.shares.keys()
        shares = {name: self.shares.get(name, Spread()).merge(other.shares.get(name, Spread())) for name in names}
        kept = sorted(shares, key=lambda name: (-shares[name].total, name))[: MAX_NAMES * len(KINDS)]
        return TrafficBaseline(
            windows=self.windows + other.windows,
            requests=self.requests + other.requests,
            shares={name: shares[name] for name in kept},
            routes=_added(self.routes, other.routes),
            templates=_added(self.templates, other.templates),
            length=self.length.merge(other.length),
            load=self.load.merge(other.load),
            asked=self.asked.merge(other.asked),
            begins=self.begins,
            ends=other.ends,
            steps=_stepped(self, other),
            pairs=self.pairs + other.pairs + bool(self.ends and other.begins),
            held=_seen(self.held, other.held),
            asking=_seen(self.asking, other.asking),
            newer_windows=self.newer_windows + other.newer_windows,
            newer_requests=self.newer_requests + other.newer_requests,
        )

    def error(self, name: str, variance: float, windows: int) -> float:
        """Return the standard error of the mean of *windows* of *name*, whose single windows have *variance*.

        Of the variance only what neighbours differ by averages out.
        """
        slow = 0.0
        if self.pairs and variance > 0.0:
            correlation = 1.0 - self.steps.get(name, 0.0) / (2 * self.pairs * variance)
            slow = variance * min(max(correlation - 2.0 / sqrt(self.pairs), 0.0), 1.0)
        return sqrt(slow + (variance - slow) / windows)

    def usual_template(self, route: str) -> tuple[str, float] | None:
        """Return ``<route>:<digest>`` of most requests of *route*, throughout the baseline, and its share; None without one."""
        mine = {name: count for name, count in self.templates.items() if name.rpartition(":")[0] == route}
        if not mine:
            return None
        name = max(mine, key=lambda key: (mine[key], key))
        share = mine[name] / self.routes[route]
        windows, last = self.asking.get(route, (0, 0))
        with_it, seen = self.held.get(name, (windows, last))
        lasting = with_it >= _HELD * windows and seen > last - _STILL
        return (name, share) if share >= USUAL and lasting else None

    def counted(self, kind: str) -> tuple[int, float]:
        """Return how many windows count names of *kind*, and their requests."""
        return (self.newer_windows, self.newer_requests) if kind in _NEWER else (self.windows, self.requests)


def of_window(window: ObservedWindow) -> TrafficBaseline:
    """Return the baseline of one window."""
    traffic = window.traffic
    requests = traffic["requests"]
    shares, routes, templates = {}, defaultdict[str, float](float), {}
    for name, count in traffic.items():
        kind, _, rest = name.partition(":")
        if kind in KINDS:
            shares[name] = Spread().add(count / requests)
        elif kind == "template":
            routes[rest.rpartition(":")[0]] += count
            templates[rest] = count
    seconds = max(window.end_ns - window.start_ns, 1) / 1e9
    newer = any(name.startswith("model:") for name in shares)
    levels = {"load": log2(requests / seconds)}
    for name, total in (("length", "prompt_log2"), ("asked_length", "asked_log2")):
        if total in traffic:
            levels[name] = traffic[total] / requests
    spreads = {name: Spread().add(value) for name, value in levels.items()}
    figures = {name: share.total for name, share in shares.items()} | levels
    return TrafficBaseline(
        1, requests, shares, dict(routes), templates,
        length=spreads.get("length", Spread()), load=spreads["load"], asked=spreads.get("asked_length", Spread()),
        begins=figures, ends=figures,
        held=dict.fromkeys(templates, (1, window.number)), asking=dict.fromkeys(routes, (1, window.number)),
        newer_windows=int(newer), newer_requests=requests if newer else 0.0,
    )  # fmt: skip


def _stepped(one: TrafficBaseline, other: TrafficBaseline) -> dict[str, float]:
    """Return the sums of squared steps of both and of the step between them, of the names that either ends or begins with."""
    steps = dict(one.steps)
    for name, squares in other.steps.items():
        steps[name] = steps.get(name, 0.0) + squares
    if one.ends and other.begins:
        for name in one.ends.keys() | other.begins.keys():
            step = other.begins.get(name, 0.0) - one.ends.get(name, 0.0)
            steps[name] = steps.get(name, 0.0) + step * step
    return _most(steps)


def _seen(one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return how many windows had each name and the number of the last, of the most frequent names."""
    nowhere = (0, -1)
    together = {
        name: (mine[0] + theirs[0], max(mine[1], theirs[1]))
        for name in one.keys() | other.keys()
        for mine, theirs in [(one.get(name, nowhere), other.get(name, nowhere))]
    }
    return _most(together)


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the sums by name, of the most frequent names."""
    together = {name: one.get(name, 0.0) + other.get(name, 0.0) for name in one.keys() | other.keys()}
    return _most(together)


def _most(figures: Mapping[str, _Figure]) -> dict[str, _Figure]:
    """Return the largest *figures*."""
    kept = sorted(figures, key=lambda name: (figures[name], name), reverse=True)[:_MOST_KEPT]
    return {name: figures[name] for name in kept}
