"""Whether a change is over: how much of it is still there.

A page says for each head or signal by how much it moved.  The share of that which is still there is the regression of where
they lie now on where the page had them::

    share = sum over heads of (level now x effect then) / sum of effect then squared

1 is all of it, 0 is none; noise of single heads averages out.  A change is over when the mean share of each piece of evidence
in the last n windows (``drift.resolve_windows``) is below a third, and no piece was missing from all of them.  Below a third
and not below one: what opened an incident must not open and close it in turn.  Where only the spread changed there is no mean
to look for; such a change is over when its evidence, which starts at zero with the page, has not come back.

Cost: reads n windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.parts import Key, sources
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headwatch.drift.parts import Part, Source
    from headwatch.findings import DriftEvent, Evidence
    from headwatch.observed import ObservedWindow

STILL_THERE = 1.0 / 3.0
LEAST_EFFECT = 0.5
"""Standard deviations: a smaller change of the mean is none to look for again; it was the spread that changed."""
_PIECES = 8
"""Pieces of evidence that are looked at, those with the most evidence."""


def still_there(evidence: Evidence, windows: Iterable[ObservedWindow], parts: Mapping[Key, Part]) -> float | None:
    """Return which share of the change in *evidence* the *windows* still show; None where they show nothing of it."""
    shares = [share for window in windows if (share := _share(evidence, sources(window, DRIFT_FEATURES), parts)) is not None]
    return float(np.mean(shares)) if shares else None


def shifted(event: DriftEvent) -> tuple[Evidence, ...]:
    """Return the pieces of *event* that are changes of a mean, those with the most evidence."""
    pieces = (one for one in event.evidence if one.kind in {"heads", "signal"} and abs(one.effect) >= LEAST_EFFECT)
    return tuple(pieces)[:_PIECES]


def over(pieces: Iterable[Evidence], windows: Sequence[ObservedWindow], parts: Mapping[Key, Part]) -> bool:
    """Return whether of all *pieces* less than a third is left in the mean of *windows*, the last ones."""
    shares = [still_there(piece, windows, parts) for piece in pieces]
    return all(share is not None and abs(share) < STILL_THERE for share in shares)


def _share(evidence: Evidence, found: Mapping[Key, Source], parts: Mapping[Key, Part]) -> float | None:
    key = Key("heads" if evidence.kind == "heads" else "signal", evidence.stratum)
    part = parts.get(key)
    view = part.view(found) if part is not None else None
    if part is not None and view is not None and evidence.name in part.names:
        index = part.names.index(evidence.name)
        values = np.full(part.width, np.nan)
        values[part.chosen] = view.values[index]
    elif key in found and evidence.name in found[key].names:
        values = found[key].values[found[key].names.index(evidence.name)]
    else:
        return None
    if evidence.kind == "signal":
        return _over([(float(values[0]), evidence.before, evidence.after, evidence.effect)])
    per_layer = part.heads if part is not None else found[key].heads
    places = [(finding.layer * per_layer + finding.head, finding) for finding in evidence.heads]
    return _over([(float(values[k]), of.before, of.after, of.effect) for k, of in places if k < len(values)])


def _over(moved: list[tuple[float, float, float, float]]) -> float | None:
    """Return the share of what is given as (now, before, after, effect) each."""
    kept = [item for item in moved if not np.isnan(item[0]) and item[3] and item[2] != item[1]]
    if not kept:
        return None
    now, before, after, effect = np.array(kept).T
    level = (now - before) / (after - before) * effect
    return float((level * effect).sum() / (effect**2).sum())
