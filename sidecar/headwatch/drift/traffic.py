"""What is asked, counted: shares of routes, languages, lengths, models, adapters and versions of templates, and the load.

A change of traffic explains what the strata do not hold equal; it is reported and never pages.  Two sets of windows are told
apart by their shares: a share has changed where the difference is at least ``LEAST_SHARE`` and four standard deviations, the
standard deviation being the larger of what the baseline's windows show and of what so many requests allow (binomial).
Bands of length count only where the mean length has changed as well.  All bounds together say nothing of a handful of
requests, and nothing of a change too small to explain anything.

Windows of earlier versions of headwatch count no models, adapters and versions of templates.  These are held against windows
that count them alone, so that an upgrade is no change.

A prompt's system text and template come as a digest.  Where most requests of a route shared one digest, and now hardly any
has it, somebody released another prompt: that is no traffic but a change of the model, and triage takes it for one.

Cost: counts by name, at most ``MAX_NAMES`` of each kind; a baseline is two numbers for each.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil, log, log2, sqrt
from typing import TYPE_CHECKING

import msgspec

from headwatch.bands import context_band
from headwatch.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headwatch.observed import ObservedWindow
    from headwatch.records import RequestRecord

MAX_NAMES = 64
"""Names of one kind in a window; what is rarer counts under ``other``."""
KINDS = {
    "route": "mix of routes", "language": "mix of languages", "band": "lengths", "model": "mix of models",
    "adapter": "mix of adapters", "template_version": "mix of template versions",
}  # fmt: skip
_NEWER = frozenset({"model", "adapter", "template_version"})
"""Kinds that windows of earlier versions do not count.  Every request has a model, so a window that counts them has one."""
LEAST_SHARE = 0.1
LEAST_LENGTH = 0.2
"""Of log2 of the prompt's tokens: 15 %."""
LEAST_LOAD = 0.585
"""Of log2 of requests a second: half as many again."""
_DEVIATIONS = 4.0
_LEAST_SPREAD = 0.02
"""Of a window's mean of a logarithm, believed at least."""
_LEAST_WINDOWS = 5
"""A shorter baseline knows no usual."""
USUAL, GONE = 0.5, 0.1
"""A digest is a route's usual one from this share on, and has gone below this part of it."""
_LEAST_REQUESTS = 5.0
_CHANCE = 1e-6
"""That a digest which is still in use is on none of the requests looked at."""


def traffic_of(records: Sequence[RequestRecord]) -> dict[str, float]:
    """Return counts of the requests that ended in a window, each as often as it stands for.

    ``requests``, ``prompt_tokens``, ``prompt_log2`` (sum of log2 of the prompt's tokens), ``route:<name>``,
    ``language:<name>``, ``band:<band of the prompt>``, ``model:<served name>``, ``adapter:<name>``,
    ``template_version:<as the client names it>``, ``template:<route>:<digest>``.  What a request does not name is not counted.
    """
    totals = {"requests": 0.0, "prompt_tokens": 0.0, "prompt_log2": 0.0}
    counts: dict[str, dict[str, float]] = {kind: defaultdict(float) for kind in (*KINDS, "template")}
    for record in records:
        context = record.context
        weight, tokens = context.weight, max(context.prompt_tokens, 1)
        totals["requests"] += weight
        totals["prompt_tokens"] += weight * tokens
        totals["prompt_log2"] += weight * log2(tokens)
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
                learnt = learnt.merge(_of(window))
        return learnt

    def merge(self, other: TrafficBaseline) -> TrafficBaseline:
        """Return the baseline of the windows of both; of templates and shares the most frequent names are kept."""
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
            newer_windows=self.newer_windows + other.newer_windows,
            newer_requests=self.newer_requests + other.newer_requests,
        )

    def counted(self, kind: str) -> tuple[int, float]:
        """Return how many windows count names of *kind*, and their requests."""
        return (self.newer_windows, self.newer_requests) if kind in _NEWER else (self.windows, self.requests)


def traffic_evidence(
    current: Sequence[ObservedWindow], baseline: TrafficBaseline, model: str = ""
) -> tuple[Evidence, ...]:
    """Return what has changed in the windows *current*, the oldest first, against *baseline*; largest first.

    Names: ``<kind>:<name>`` (of each of :data:`KINDS` the share that moved most), ``length``, ``load``, and
    ``template:<route>``.
    """
    with_requests = [window for window in current if window.traffic.get("requests", 0.0) > 0.0]
    if baseline.windows < _LEAST_WINDOWS or not with_requests:
        return ()
    since = with_requests[0].start_ns
    now = TrafficBaseline.learn(with_requests)
    found = [*_shares(now, baseline), *_levels(now, baseline)]
    found.sort(key=lambda item: -abs(item[3]))
    templates = tuple(_templates(with_requests, baseline, model))
    return templates + tuple(
        Evidence("traffic", name, model, "", "", 0.0, before, after, effect, since, note=note)
        for name, before, after, effect, note in found
    )


_Found = tuple[str, float, float, float, str]
"""Name, before, after, effect, note."""


def _shares(now: TrafficBaseline, baseline: TrafficBaseline) -> Iterator[_Found]:
    longer = abs(now.length.mean() - baseline.length.mean()) >= LEAST_LENGTH
    for kind, what in KINDS.items():
        if kind == "band" and not longer:
            continue  # prompts near the edge of a band cross it for nothing
        (windows, requests), (windows_now, requests_now) = baseline.counted(kind), now.counted(kind)
        if windows < _LEAST_WINDOWS or not windows_now:
            continue
        largest: _Found | None = None
        for name in sorted(now.shares.keys() | baseline.shares.keys()):
            if not name.startswith(f"{kind}:"):
                continue
            usual = baseline.shares.get(name, Spread())
            before = usual.total / windows
            after = now.shares.get(name, Spread()).total / windows_now
            middle = (before * requests + 0.5) / (requests + 1.0)
            between = max(usual.squares / windows - before**2, 0.0) / windows_now
            deviation = sqrt(max(between, middle * (1.0 - middle) / requests_now))
            moved = after - before
            if abs(moved) < LEAST_SHARE or abs(moved) < _DEVIATIONS * deviation:
                continue
            if largest is None or abs(moved) > abs(largest[3]):
                largest = name, before, after, moved, f"the {what} changed: {name} from {before:.0%} to {after:.0%} of requests"
        if largest is not None:
            yield largest


def _levels(now: TrafficBaseline, baseline: TrafficBaseline) -> Iterator[_Found]:
    for name, least, usual, held, unit in (
        ("length", LEAST_LENGTH, baseline.length, now.length, "tokens of a prompt (geometric mean)"),
        ("load", LEAST_LOAD, baseline.load, now.load, "requests a second"),
    ):
        if not usual.windows or not held.windows:
            continue
        deviation = max(sqrt(usual.variance()), _LEAST_SPREAD)
        moved = held.mean() - usual.mean()
        if abs(moved) >= max(least, _DEVIATIONS * deviation / sqrt(held.windows)):
            before, after = 2.0 ** usual.mean(), 2.0 ** held.mean()
            yield name, before, after, moved / deviation, f"{unit}: {before:.3g} before, {after:.3g} now"


def _templates(current: Sequence[ObservedWindow], baseline: TrafficBaseline, model: str) -> Iterator[Evidence]:
    """Yield routes whose usual digest is gone from their latest requests, so many that it is not gone by chance."""
    for route, seen in baseline.routes.items():
        mine = {name: count for name, count in baseline.templates.items() if name.rpartition(":")[0] == route}
        if not mine:
            continue
        name = max(mine, key=lambda key: (mine[key], key))
        before = mine[name] / seen
        if before < USUAL:
            continue
        least = _LEAST_REQUESTS if before >= 1.0 - _CHANCE else max(_LEAST_REQUESTS, ceil(log(_CHANCE) / log(1.0 - before)))
        requests = with_digest = 0.0
        for window in reversed(current):  # a release divides them: what came before it says nothing of what is asked now
            of_route = _of(window)
            requests += of_route.routes.get(route, 0.0)
            with_digest += of_route.templates.get(name, 0.0)
            if requests >= least:
                after = with_digest / requests
                if after <= GONE * before:
                    note = (f"the prompt template {name.rpartition(':')[2]} that {before:.0%} of requests had is on "
                            f"{after:.0%} now")
                    yield Evidence("traffic", f"template:{route}", model, route, "", 0.0, before, after, after - before,
                                   window.start_ns, note=note)  # fmt: skip
                break


def _of(window: ObservedWindow) -> TrafficBaseline:
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
    length = traffic.get("prompt_log2")
    newer = any(name.startswith("model:") for name in shares)
    return TrafficBaseline(
        1, requests, shares, dict(routes), templates,
        Spread() if length is None else Spread().add(length / requests),
        Spread().add(log2(requests / seconds)),
        newer_windows=int(newer), newer_requests=requests if newer else 0.0,
    )  # fmt: skip


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the sums by name, of the most frequent names."""
    together = {name: one.get(name, 0.0) + other.get(name, 0.0) for name in one.keys() | other.keys()}
    kept = sorted(together, key=lambda name: (-together[name], name))[: MAX_NAMES * 4]
    return {name: together[name] for name in kept}
