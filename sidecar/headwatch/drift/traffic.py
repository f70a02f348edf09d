"""In what traffic has changed: shares of routes, languages, lengths, models, adapters and versions of templates, and the load.

A change of traffic explains what the strata do not hold equal; it is reported and never pages.  Two sets of windows are told
apart by their shares: a share has changed where the difference is at least ``LEAST_SHARE`` and four standard deviations, the
standard deviation being the larger of what the baseline's windows show (:meth:`TrafficBaseline.error`) and of what so many
requests allow (binomial).  Bands of length count only where the mean length has changed as well.  All bounds together say
nothing of a handful of requests, and nothing of a change too small to explain anything.

A prompt's system text and template come as a digest.  Where most requests of a route shared one digest throughout the baseline,
and now hardly any has it, somebody released another prompt: that is no traffic but a change of the model, and triage takes it
for one.  A digest that came or went within the baseline is nobody's usual one: a prompt with the date in it changes each day.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from headwatch.drift.traffic_baseline import KINDS, Spread, TrafficBaseline, of_window
from headwatch.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.observed import ObservedWindow

LEAST_SHARE = 0.1
LEAST_LENGTH = 0.2
"""Of log2 of the prompt's tokens: 15 %."""
LEAST_LOAD = 0.585
"""Of log2 of requests a second: half as many again."""
GONE = 0.1
"""The usual digest of a route has gone below this part of its share."""
_DEVIATIONS = 4.0
_LEAST_SPREAD = 0.02
"""Of a window's mean of a logarithm, believed at least."""
_LEAST_WINDOWS = 5
"""A shorter baseline knows no usual."""
_LEAST_REQUESTS = 5.0
_CHANCE = 1e-6
"""That a digest which is still in use is on none of the requests looked at."""


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
            between = baseline.error(name, max(usual.squares / windows - before**2, 0.0), windows_now)
            deviation = max(between, sqrt(middle * (1.0 - middle) / requests_now))
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
            of_route = of_window(window)
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
