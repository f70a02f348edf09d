"""From a case to a verdict: which rows of the decision table speak, which class that makes, and how sure it is.

Support of a class is what its rows lend together, ``1 - product(1 - weight)`` by the strongest row of each cause, less the
doubts that hold; rows below one half do not add up, the strongest of them counts where there is no other.  The verdict is the
first class, in the order telemetry, model, injection, retrieval, traffic, whose support reaches one half, since an earlier
class explains the evidence of the later ones: another model also reads documents otherwise.
Where no class reaches it, the one with the most support is taken, which is then below one half and shows as a low confidence.

Confidence is the support of the class, less a part of the runner-up's: a quarter where the class would itself explain what
speaks for the runner-up (it comes before it), one half where it would not.  It orders verdicts by how much a second look pays;
how often verdicts of a class are right is what rulings count (``headwatch incident list``).

Pure and fast: a few dozen predicates over a few dozen pieces of evidence, so that it can be replayed on recordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from headwatch.findings import CLASSES, Evidence, Verdict
from headwatch.incident.facts import Facts
from headwatch.incident.figure_text import figure
from headwatch.incident.table import DOUBTS, LEAST, ROWS, UNTOLD, Row
from headwatch.incident.telling import tells_apart

if TYPE_CHECKING:
    from headwatch.findings import Case

SUPPORTED = 0.5
_NOTICED = 0.1
"""A runner-up with less support is not worth a word."""
_EXPLAINED, _UNEXPLAINED = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class _Spoken:
    row: Row
    weight: float
    sentence: str


def triage(case: Case) -> Verdict:
    """Return what kind of thing *case* is."""
    facts = Facts(case, LEAST)
    spoken = [one for row in ROWS if (one := _ask(row, facts)) is not None]
    spoken, doubts = _doubted(spoken, facts)
    support = {name: _support([one for one in spoken if one.row.drift_class == name]) for name in CLASSES}
    if not spoken:
        return _nothing_said(case)
    chosen = next((name for name in CLASSES if support[name] >= SUPPORTED), max(CLASSES, key=lambda name: support[name]))
    runner_up = max((name for name in CLASSES if name != chosen), key=lambda name: support[name])
    noticed = runner_up if support[runner_up] >= _NOTICED else None
    strongest = max((one for one in spoken if one.row.drift_class == chosen), key=lambda one: one.weight)
    explained = CLASSES.index(chosen) < CLASSES.index(runner_up)
    less = (_EXPLAINED if explained else _UNEXPLAINED) * (support[runner_up] if noticed else 0.0)
    return Verdict(
        drift_class=chosen,
        cause=strongest.row.cause,
        sentence=strongest.sentence,
        confidence=round(support[chosen] * (1.0 - less), 2),
        runner_up=noticed,
        tells_apart=tells_apart(chosen, noticed, facts.canary) if noticed else "",
        why=(*(f"{one.row.drift_class}/{one.row.cause} {one.weight:.2f}: {one.sentence}" for one in spoken), *doubts),
    )


def _ask(row: Row, facts: Facts) -> _Spoken | None:
    found = row.when(facts)
    if found is None or found is False:
        return None
    return _Spoken(row, row.weight, _sentence(row.says, found, facts.case))


def _sentence(says: str, found: Evidence | Literal[True], case: Case) -> str:
    if isinstance(found, Evidence):
        place = f"on {found.route}, " if found.route and "{route}" not in says and found.kind == "signal" else ""
        return place + says.format(
            before=figure(found.name, found.before),
            after=figure(found.name, found.after),
            name=found.name.partition(".")[2] or found.name.partition(":")[2] or found.name,
            route=found.route,
            note=found.note,
        )
    run = case.canary
    if run is not None and run.failed and run.earliest_layer is not None:
        return f"{says} (from layer {run.earliest_layer} on, by up to {run.deviation:.2g})"
    return says


def _doubted(spoken: list[_Spoken], facts: Facts) -> tuple[list[_Spoken], list[str]]:
    told = []
    for doubt in DOUBTS:
        aimed = [
            one for one in spoken
            if one.row.drift_class == doubt.drift_class and (not doubt.causes or one.row.cause in doubt.causes)
        ]  # fmt: skip
        if aimed and doubt.when(facts):
            spoken = [_Spoken(one.row, one.weight * doubt.left, one.sentence) if one in aimed else one for one in spoken]
            told.append(f"less {doubt.drift_class} (x {doubt.left:g}): {doubt.says}")
    return spoken, told


def _support(rows: list[_Spoken]) -> float:
    """Return what *rows* of one class lend together: rows of one cause see the same thing, so the strongest counts, once.

    Weak rows do not add up: other topics move many shares a little, and many a little is no fault.
    """
    causes: dict[str, float] = {}
    for one in rows:
        causes[one.row.cause] = max(causes.get(one.row.cause, 0.0), one.weight)
    claims = [weight for weight in causes.values() if weight >= SUPPORTED]
    return 1.0 - prod(1.0 - weight for weight in claims) if claims else max(causes.values(), default=0.0)


def _nothing_said(case: Case) -> Verdict:
    """Return the verdict on evidence that is too small, or of a kind that no row knows."""
    first = case.event.evidence[0].name if case.event.evidence else "nothing"
    return Verdict(
        drift_class="traffic", cause=UNTOLD,
        sentence=f"{first} changed by less than matters, or in a direction that speaks for no fault",
        confidence=0.2, runner_up=None, tells_apart="", why=("no row of the decision table spoke",),
    )  # fmt: skip
