"""Whether what the model reads is old: against newer documents of its source, and by versions that have been seen since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.drift.signals.definition import SignalDefinition
from headwatch.drift.signals.versions import seconds_of

if TYPE_CHECKING:
    from headwatch.drift.signals.freshness import FreshnessBook
    from headwatch.drift.signals.read import ReadRequest
    from headwatch.drift.signals.versions import VersionBook

_DAY_SECONDS = 86_400.0

DEFINITIONS = (
    SignalDefinition(
        "stale_age_days", 0.25, 1, "d",
        "Mean over the documents, weighted by their share of mass, of the days by which retrieved_at is before the newest of "
        "the same source seen so far; before the end of the request, where a source is fetched live.",
        "Whether an old document is wrong. It is as good as the clock of whoever wrote retrieved_at, and counts from when the "
        "text was fetched, not written. An index of which nothing is built anew any more: all of it ages alike, as it does "
        "between two builds.",
    ),
    SignalDefinition(
        "stale_mass", 0.03, 1, "1",
        "Share of mass on documents of which a newer version has been seen, among those whose version can be compared.",
        "A whole index that is stale from the start: a version that was never seen is not missed.",
        counted=True,
    ),
    SignalDefinition(
        "version_lag", 0.05, 1, "{version}",
        "Mean number of newer versions seen of each document, weighted by its share of mass, among those whose version can be "
        "compared.",
        "As for stale_mass; and a lag beyond eight versions.",
        counted=True,
    ),
)


def values(request: ReadRequest, versions: VersionBook, freshness: FreshnessBook) -> dict[str, float]:
    """Return the signals that *request* defines, by what *versions* have been seen, and which documents were the newest."""
    made = {}
    now = request.record.ended_ns / 1e9
    ages, lags = [], []
    for item in request.read:
        document = item.document
        retrieved = seconds_of(document.retrieved_at) if document.retrieved_at else None
        if retrieved is not None:
            ages.append((item.share, freshness.behind(document.source, retrieved, now) / _DAY_SECONDS))
        lag = versions.lag(document.source, document.id, document.version, document.retrieved_at)
        if lag is not None:
            lags.append((item.share, lag))
    if (age := _mean(ages)) is not None:
        made["stale_age_days"] = age
    if (behind := _mean([(share, float(lag > 0)) for share, lag in lags])) is not None:
        made["stale_mass"] = behind
        made["version_lag"] = _mean(lags) or 0.0
    return made


def _mean(weighted: list[tuple[float, float]] | list[tuple[float, int]]) -> float | None:
    weight = sum(share for share, _ in weighted)
    return sum(share * value for share, value in weighted) / weight if weight > 0.0 else None
