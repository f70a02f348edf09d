"""What is asked, counted: shares of routes, languages and lengths, the load, and which prompt templates are in use.

A change of traffic explains what the strata do not hold equal; it is reported and never pages.  Two sets of windows are told
apart by their shares: a share has changed where the difference is at least ``LEAST_SHARE`` and four standard deviations, the
standard deviation being the larger of what the baseline's windows show and of what so many requests allow (binomial).  What
the baseline's windows show is divided by the windows that are looked at only as far as neighbours differ (von Neumann's mean
square successive difference): what moves slowly, as from day to night, does not average out over an hour.
Bands of length count only where the mean length has changed as well.  All bounds together say nothing of a handful of
requests, and nothing of a change too small to explain anything.

A prompt's system text and template come as a digest.  Where most requests of a route shared one digest throughout the baseline,
and now hardly any has it, somebody released another prompt: that is no traffic but a change of the model, and triage takes it
for one.  A digest that came or went within the baseline is nobody's usual one: a prompt with the date in it changes each day.

Reference: J. von Neumann, Distribution of the ratio of the mean square successive difference to the variance, 1941.

Cost: counts by name, at most ``MAX_NAMES`` of each kind; a baseline is two numbers for each.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil, log, log2, sqrt
from typing import TYPE_CHECKING, TypeVar

import msgspec

from headwatch.bands import context_band
from headwatch.drift.signals.read import asked_tokens
from headwatch.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headwatch.observed import ObservedWindow
    from headwatch.records import RequestRecord

MAX_NAMES = 64
"""Routes, languages, templates of a window; what is rarer counts under ``other``."""
KINDS = {"route": "mix of routes", "language": "mix of languages", "band": "lengths"}
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
_HELD = 0.9
"""Of the baseline's windows with requests of the route, in which its usual digest was seen."""
_STILL = 10
"""Windows before the end of the baseline in which it was seen as well."""
_LEAST_REQUESTS = 5.0
_Figure = TypeVar("_Figure", float, tuple[int, int])
_CHANCE = 1e-6
"""That a digest which is still in use is on none of the requests looked at."""


def traffic_of(records: Sequence[RequestRecord]) -> dict[str, float]:
    """Return counts of the requests that ended in a window, each as often as it stands for.

    ``requests``, ``prompt_tokens``, ``prompt_log2`` (sum of log2 of the prompt's tokens), ``asked_log2`` (the same of the
    tokens that are no document's), ``route:<name>``,
    ``language:<name>``, ``band:<band of the prompt>``, ``template:<route>:<digest>``.
    """
    totals = {"requests": 0.0, "prompt_tokens": 0.0, "prompt_log2": 0.0, "asked_log2": 0.0}
    counts: dict[str, dict[str, float]] = {kind: defaultdict(float) for kind in ("route", "band", "language", "template")}
    for record in records:
        context = record.context
        weight, tokens = context.weight, max(context.prompt_tokens, 1)
        totals["requests"] += weight
        totals["prompt_tokens"] += weight * tokens
        totals["prompt_log2"] += weight * log2(tokens)
        totals["asked_log2"] += weight * log2(max(asked_tokens(context), 1))
        counts["route"][context.route] += weight
        counts["band"][context_band(tokens)] += weight
        if context.language:
            counts["language"][context.language] += weight
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

    @classmethod
    def learn(cls, windows: Iterable[ObservedWindow]) -> TrafficBaseline:
        """Return the baseline of *windows*; those without requests say nothing."""
        learnt = cls()
        for window in windows:
            if window.traffic.get("requests", 0.0) > 0.0:
                learnt = learnt.merge(_of(window))
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


def traffic_evidence(
    current: Sequence[ObservedWindow], baseline: TrafficBaseline, model: str = ""
) -> tuple[Evidence, ...]:
    """Return what has changed in the windows *current*, the oldest first, against *baseline*; largest first.

    Names: ``route:<name>``, ``language:<name>``, ``band:<name>`` (the share of each kind that moved most), ``length``,
    ``load``, and ``template:<route>``.
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
        largest: _Found | None = None
        for name in sorted(now.shares.keys() | baseline.shares.keys()):
            if not name.startswith(f"{kind}:"):
                continue
            usual = baseline.shares.get(name, Spread())
            before = usual.total / baseline.windows
            after = now.shares.get(name, Spread()).total / now.windows
            middle = (before * baseline.requests + 0.5) / (baseline.requests + 1.0)
            between = baseline.error(name, max(usual.squares / baseline.windows - before**2, 0.0), now.windows)
            deviation = max(between, sqrt(middle * (1.0 - middle) / now.requests))
            moved = after - before
            if abs(moved) < LEAST_SHARE or abs(moved) < _DEVIATIONS * deviation:
                continue
            if largest is None or abs(moved) > abs(largest[3]):
                largest = name, before, after, moved, f"the {what} changed: {name} from {before:.0%} to {after:.0%} of requests"
        if largest is not None:
            yield largest


def _levels(now: TrafficBaseline, baseline: TrafficBaseline) -> Iterator[_Found]:
    known = baseline.asked.windows and now.asked.windows  # windows of earlier versions do not tell what was asked from the rest
    asked = (baseline.asked, now.asked) if known else (baseline.length, now.length)
    for name, least, (usual, held), unit in (
        ("length", LEAST_LENGTH, (baseline.length, now.length), "tokens of a prompt (geometric mean)"),
        ("asked_length", LEAST_LENGTH, asked, "tokens of a prompt without its documents (geometric mean)"),
        ("load", LEAST_LOAD, (baseline.load, now.load), "requests a second"),
    ):
        if not usual.windows or not held.windows:
            continue
        deviation = max(sqrt(usual.variance()), _LEAST_SPREAD)
        moved = held.mean() - usual.mean()
        if abs(moved) >= max(least, _DEVIATIONS * baseline.error(name, deviation**2, held.windows)):
            before, after = 2.0 ** usual.mean(), 2.0 ** held.mean()
            yield name, before, after, moved / deviation, f"{unit}: {before:.3g} before, {after:.3g} now"


def _templates(current: Sequence[ObservedWindow], baseline: TrafficBaseline, model: str) -> Iterator[Evidence]:
    """Yield routes whose usual digest is gone from their latest requests, so many that it is not gone by chance."""
    for route in baseline.routes:
        usual = baseline.usual_template(route)
        if usual is None:
            continue
        name, before = usual
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
    kept = sorted(figures, key=lambda name: (figures[name], name), reverse=True)[: MAX_NAMES * 4]
    return {name: figures[name] for name in kept}
