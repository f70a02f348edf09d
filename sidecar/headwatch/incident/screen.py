"""An incident on a terminal, for somebody who was asleep: what, since when, how sure, what to look at, what to do next.

Eighty columns, most important first, so that the first screen is enough to decide whether to get up.  Pure: text out of an
incident and its audit, with the time handed in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwatch.incident.figure_text import effect_text, figure, place
from headwatch.incident.paint import WIDTH, Paint, Style, clean, cut, wrapped
from headwatch.incident.telling import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.findings import Evidence, HeadFinding, Incident, Ruling, Severity
    from headwatch.incident.shelf import AuditEntry

_RULED: dict[Ruling | None, str] = {"true": "a true page", "false_page": "a false page", "known_change": "a known change"}
_SEVERITY: dict[Severity, Style] = {"critical": "red", "warning": "yellow", "info": "blue"}
_LABEL = 13
_HEADS, _EVIDENCE, _AUDIT = 8, 10, 12
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SURE, _RATHER = 0.8, 0.5


def screen(
    incident: Incident,
    audit: Sequence[AuditEntry],
    *,
    now_ns: int,
    runbook: str,
    colour: bool = False,
) -> str:
    """Return *incident* as text."""
    paint = Paint(colour=colour)
    parts = (
        _title(incident, now_ns, paint), _judgement(incident, paint), _evidence(incident, audit, paint),
        _heads(incident, paint), _documents(incident, paint), _prompts(incident, paint), _requests(incident, paint),
        _canary(incident, paint),
        _deploys(incident, paint), _why(incident, paint), _audit(audit, paint), _next(incident, runbook, paint),
    )  # fmt: skip
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _title(incident: Incident, now_ns: int, paint: Paint) -> Iterator[str]:
    verdict, event = incident.verdict, incident.event
    left, right = f"{verdict.drift_class}: {verdict.cause}", incident.severity.upper()
    gap = " " * max(2, WIDTH - len(incident.id) - 2 - len(left) - len(right))
    yield f"{incident.id}  {paint(left, 'bold')}{gap}{paint(right, _SEVERITY[incident.severity])}"
    words = [_state(incident, now_ns), event.model, f"route {event.route}" if event.route else "all routes"]
    words.append("paged" if incident.paged else f"no page ({incident.silenced_why or 'traffic never pages'})")
    yield from wrapped(clean(" · ".join(words)))
    yield ""
    for line in wrapped(clean(_capital(verdict.sentence) + "."), 2):
        yield paint(line, "bold")


def _state(incident: Incident, now_ns: int) -> str:
    again = f", opened again ({incident.reopened})" if incident.reopened else ""
    if incident.state == "resolved":
        told = _RULED.get(incident.ruling, "not ruled yet")
        return f"resolved by {incident.resolved_by} {lasted(now_ns - incident.resolved_ns)} ago, {told}{again}"
    if incident.state == "acknowledged":
        told = f", {_RULED[incident.ruling]}" if incident.ruling else ""
        return f"acknowledged by {incident.acknowledged_by} {lasted(now_ns - incident.acknowledged_ns)} ago{told}{again}"
    return f"open for {lasted(now_ns - incident.opened_ns)}{again}"


def _judgement(incident: Incident, paint: Paint) -> Iterator[str]:
    verdict, event = incident.verdict, incident.event
    word = "sure" if verdict.confidence >= _SURE else "rather sure" if verdict.confidence >= _RATHER else "not sure"
    style: Style = "green" if verdict.confidence >= _SURE else "yellow"
    other = f"; next best: {verdict.runner_up}" if verdict.runner_up else "; nothing else speaks for itself"
    yield f"{'How sure':{_LABEL}}{paint(f'{verdict.confidence:.2f} {word}', style)}{other}"
    if verdict.tells_apart:
        yield from wrapped(clean(verdict.tells_apart), _LABEL, "Would tell")
    yield from wrapped(
        f"{moment(event.since_ns)} UTC; found {lasted(event.time_ns - event.since_ns)} later, "
        f"after {event.windows_since} windows", _LABEL, "Began",
    )  # fmt: skip
    if event.log10_evidence > 0:
        promised = lasted(int(event.interval_windows * event.window_seconds * 1e9))
        told = f"one false page in {event.interval_windows:,.0f} windows ({promised}), of everything together"
        yield from wrapped(told, _LABEL, "Promise")
    if incident.note:
        yield from wrapped(clean(incident.note), _LABEL, "Note")


def _evidence(incident: Incident, audit: Sequence[AuditEntry], paint: Paint) -> Iterator[str]:
    found = incident.event.evidence
    if not found:
        return
    yield paint(f"{'EVIDENCE':42}{'before':>9}{'now':>9}{'effect':>9}{'log10 M':>9}", "dim")
    for one in found[:_EVIDENCE]:
        name, where = f"{one.kind} {clean(one.name)}", clean(place(one))
        label = f"{name} {cut(where, max(0, 40 - len(name)))}" if where else name
        strength = f"{one.log10_evidence:.1f}" if one.log10_evidence else "-"
        before, after = (figure(one.name, value) for value in (one.before, one.after))
        yield f"{cut(label, 41):42}{before:>9}{after:>9}{_effect(one):>9}{strength:>9}"
    noted = next((one for one in found[:_EVIDENCE] if one.note), None)
    if noted is not None:
        yield from (paint(line, "dim") for line in wrapped(clean(f"{noted.name}: {noted.note}"), 2))
    if len(found) > _EVIDENCE:
        yield paint(f"… and {len(found) - _EVIDENCE} more", "dim")
    if again := [line for line in audit if line.what == "merged"]:
        yield paint(f"Found again {len(again)} times since, last at {moment(again[-1].time_ns)} UTC", "dim")


def _effect(one: Evidence) -> str:
    return effect_text(one.effect) if one.kind in {"heads", "signal", "canary"} else "-"


def _heads(incident: Incident, paint: Paint) -> Iterator[str]:
    moved = [(one, head) for one in incident.event.evidence for head in one.heads]
    moved.sort(key=lambda pair: (-pair[1].log10_evidence, -abs(pair[1].effect)))
    if not moved:
        return
    yield paint(f"{'HEADS, by rank':42}{'before':>9}{'now':>9}{'effect':>9}{'log10 M':>9}", "dim")
    for one, head in moved[:_HEADS]:
        yield _head(head, one.route)
    if any(head.confident for _, head in moved[:_HEADS]):
        yield paint("* more evidence than its rank needs (e-d-BH)", "dim")
    yield paint("A rank says where to look; it carries no claim about a single head.", "dim")


def _head(head: HeadFinding, route: str) -> str:
    mark = "*" if head.confident else " "
    name = f"{mark} layer {head.layer:>2} head {head.head:>2}  {head.feature}"
    return (f"{cut(f'{name}  {clean(route)}', 41):42}{head.before:>9.3g}{head.after:>9.3g}{effect_text(head.effect):>9}"
            f"{head.log10_evidence:>9.1f}")  # fmt: skip


def _documents(incident: Incident, paint: Paint) -> Iterator[str]:
    if not incident.exhibits.documents:
        return
    yield paint(f"{'DOCUMENTS, among the examples':42}{'before':>9}{'now':>9}{'requests':>10}", "dim")
    for one in incident.exhibits.documents:
        about = " ".join(clean(part) for part in (one.source, one.version and f"v{one.version.removeprefix('v')}") if part)
        name = cut(clean(one.id), 40 - min(len(about), 16))
        shares = "".join(f"{'-' if share is None else f'{share:.0%}':>9}" for share in (one.share_before, one.share_after))
        yield f"{cut(f'{name} {about}', 41):42}{shares}{one.requests:>10}"


def _prompts(incident: Incident, paint: Paint) -> Iterator[str]:
    if not incident.exhibits.prompts:
        return
    yield paint(f"{'KINDS OF PROMPTS that draw it':42}{'route':28}{'requests':>10}", "dim")
    for one in incident.exhibits.prompts:
        yield f"{cut(clean(one.kind), 41):42}{cut(clean(one.route), 27):28}{one.requests:>10}"


def _requests(incident: Incident, paint: Paint) -> Iterator[str]:
    if not incident.exhibits.requests:
        return
    yield paint(f"{'REQUESTS that stand out':36}{'time UTC':8} {'kind of prompt':24}{'grounding':>11}", "dim")
    for one in incident.exhibits.requests:
        undefined = "-" if one.state == "measured" else one.state
        ratio = undefined if one.grounding_ratio is None else f"{one.grounding_ratio:.3f}"
        name = f"{cut(clean(one.request_id), 34 - min(len(one.route) + 1, 14))} {clean(one.route)}"
        yield f"{cut(name, 35):36}{moment(one.time_ns)[11:]:8} {cut(clean(one.kind or '-'), 24):24}{ratio:>11}"


def _canary(incident: Incident, paint: Paint) -> Iterator[str]:
    run = incident.exhibits.canary
    if run is None:
        return
    told = paint("FAILED", "red") if run.failed else paint("passed", "green")
    when = "before the change" if run.time_ns < incident.event.since_ns else "since the change"
    where = f", from layer {run.earliest_layer} on" if run.failed and run.earliest_layer is not None else ""
    looks = f", looks like {run.hint}" if run.failed and run.hint else ""
    yield f"{'Fixed prompt':{_LABEL}}{told} at {moment(run.time_ns)} UTC, {when}{where}{looks}"
    yield f"{'':{_LABEL}}{clean(run.prompt)}: off by {run.deviation:.2g}, allowed {run.threshold:.2g}"


def _deploys(incident: Incident, paint: Paint) -> Iterator[str]:
    if incident.exhibits.deploys:
        yield paint("RELEASES near the start", "dim")
    for one in incident.exhibits.deploys:
        who = f" by {one.who}" if one.who else ""
        revision = f" ({one.revision})" if one.revision else ""
        yield from wrapped(clean(f"{moment(one.time_ns)} UTC  {one.title}{revision}{who}"), 2)


def _why(incident: Incident, paint: Paint) -> Iterator[str]:
    yield paint("WHY, by the rows of the decision table that spoke", "dim")
    for line in incident.verdict.why:
        yield from wrapped(clean(line), 4, "  -")


def _audit(audit: Sequence[AuditEntry], paint: Paint) -> Iterator[str]:
    lines = [line for line in audit if line.what != "merged"]
    if not lines:
        return
    yield paint("WHAT HAPPENED, UTC", "dim")
    if len(lines) > _AUDIT:
        yield paint(f"  … {len(lines) - _AUDIT} earlier lines", "dim")
    for line in lines[-_AUDIT:]:
        note = f": {line.note}" if line.note else ""
        yield from wrapped(clean(f"{line.what} by {line.who}{note}"), 23, f"  {moment(line.time_ns)}")


def _next(incident: Incident, runbook: str, paint: Paint) -> Iterator[str]:
    short = incident.id.removeprefix("hw-")[:6]
    yield paint("NEXT", "bold")
    yield f"  First    {FIRST[incident.verdict.drift_class]}"
    yield f"  Read     {runbook}"
    if incident.state == "open":
        yield f"  Take it  headwatch incident ack {short}"
    yield f"  Look     headwatch incident report {short} --out incident.html"
    if incident.state != "resolved" or incident.ruling is None:
        yield f"  Close    headwatch incident resolve {short} --ruling RULING"
        yield "           RULING is true, false_page or known_change: what the page was"


def moment(time_ns: int) -> str:
    """Return a time as ``2026-11-29 03:04:05``, UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasted(duration_ns: int) -> str:
    """Return a duration in the unit that a person would use."""
    seconds = max(0, duration_ns) / 1e9
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
