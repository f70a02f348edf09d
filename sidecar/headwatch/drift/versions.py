"""A whole baseline: learned, written, read, and held against another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.drift.codec import dumps, loads
from headwatch.drift.kept import NewBaseline
from headwatch.drift.learning import learn
from headwatch.drift.parts import Part
from headwatch.drift.telemetry import TelemetryBaseline
from headwatch.drift.traffic_baseline import TrafficBaseline
from headwatch.errors import DriftStateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.config import DriftConfig
    from headwatch.drift.keeper import Keeper
    from headwatch.drift.learning import Span
    from headwatch.drift.parts import Key


@dataclass(frozen=True, slots=True)
class Difference:
    """How one feature or signal of one part differs between two baselines, in standard deviations of the first."""

    kind: str
    label: str
    name: str
    rms: float
    """Root mean square over streams of the shift of the mean."""
    largest: float
    """Largest shift of a stream, with its sign."""
    layer: int
    head: int
    """Which head that is; -1 for signals."""
    before: float
    after: float
    """Means of that stream."""
    spread: float
    """Median over streams of the second's standard deviation over the first's."""


def learned(span: Span, config: DriftConfig, window_seconds: float, created_ns: int, note: str = "") -> NewBaseline | None:
    """Return what the windows of *span* teach, ready to be kept; None where they are too few for any part."""
    parts = learn(span, config, window_seconds)
    if not parts:
        return None
    traffic, telemetry, count = TrafficBaseline(), TelemetryBaseline(), 0
    for window in span.read():
        traffic = traffic.merge(TrafficBaseline.learn([window]))
        telemetry = telemetry.merge(TelemetryBaseline.learn([window]))
        count += bool(window.strata or window.signals)
    facts = {"traffic": msgspec.to_builtins(traffic), "telemetry": msgspec.to_builtins(telemetry)}  # for :func:`usual`
    contents = {part.key.text: dumps(part) for part in parts}
    return NewBaseline("learned", created_ns, span.first, span.last, count, contents, note, facts)


def usual(facts: Mapping[str, object]) -> tuple[TrafficBaseline, TelemetryBaseline]:
    """Return what traffic and telemetry were like, from the *facts* of a baseline; empty baselines where it has none.

    Raises:
        DriftStateError: They are of another version.
    """
    try:
        return (
            msgspec.convert(facts.get("traffic", {}), TrafficBaseline),
            msgspec.convert(facts.get("telemetry", {}), TelemetryBaseline),
        )
    except msgspec.ValidationError as error:
        raise DriftStateError(f"what a baseline says of traffic cannot be read ({error}); learn it anew") from error


def read_parts(keeper: Keeper, version: int) -> tuple[dict[Key, Part], dict[Key, int]]:
    """Return the parts of *version*, and for each 0 or in which order it came later.

    Raises:
        DriftStateError: There is no such version, or it cannot be read.
    """
    kept = [(loads(content, Part), order) for order, content in keeper.parts(version).values()]
    return {part.key: part for part, _ in kept}, {part.key: order for part, order in kept}


def as_new(keeper: Keeper, version: int) -> NewBaseline:
    """Return *version* as one that can be kept elsewhere, its newcomers as if they had been there from the start.

    Raises:
        DriftStateError: There is no such version.
    """
    entry = keeper.baseline(version)
    parts = {key: content for key, (_, content) in keeper.parts(version).items()}
    return NewBaseline(
        entry.origin, entry.created_ns, entry.first_window, entry.last_window, entry.windows, parts, entry.note, entry.facts
    )


def differences(one: Mapping[Key, Part], other: Mapping[Key, Part]) -> list[Difference]:
    """Return how *other* differs from *one*, in what both have, the largest first."""
    found = [difference for key, part in one.items() if key in other for difference in _differences(part, other[key])]
    return sorted(found, key=lambda difference: -difference.rms)


def creep(one: Mapping[Key, Part], other: Mapping[Key, Part]) -> float:
    """Return the root mean square of all shifts between two baselines, in standard deviations."""
    squares = [difference.rms**2 for difference in differences(one, other)]
    return float(np.sqrt(np.mean(squares))) if squares else 0.0


def _differences(one: Part, other: Part) -> Iterable[Difference]:
    if one.width != other.width:
        return
    common = np.intersect1d(one.chosen, other.chosen)
    mine, theirs = np.searchsorted(one.chosen, common), np.searchsorted(other.chosen, common)
    for index, name in enumerate(one.names):
        if name not in other.names:
            continue
        second = other.names.index(name)
        known = one.known[index, mine] & other.known[second, theirs]
        if not known.any():
            continue
        before, after = one.streams.mean[index, mine][known], other.streams.mean[second, theirs][known]
        scale, later = one.streams.scale[index, mine][known], other.streams.scale[second, theirs][known]
        shift = (after - before) / scale
        top = int(np.abs(shift).argmax())
        stream = int(common[known][top])
        layer, head = divmod(stream, one.heads) if one.heads else (-1, -1)
        yield Difference(
            one.kind, one.label, name, float(np.sqrt(np.mean(shift**2))), float(shift[top]), layer, head, float(before[top]),
            float(after[top]), float(np.median(later / scale)),
        )  # fmt: skip
