"""An incident in a few lines of plain text, for peers that show text: annotations of alerts, marks on a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.findings import Incident

_SHOWN = 5


def description(incident: Incident) -> str:
    """Return some lines: how sure it is, what would tell it from the next best explanation, where to look first."""
    verdict = incident.verdict
    lines = [f"Cause: {verdict.cause}, confidence {verdict.confidence:.0%}."]
    if verdict.runner_up is not None:
        lines.append(f"Next best explanation: {verdict.runner_up}. {verdict.tells_apart}".rstrip())
    if incident.event.route:
        lines.append(f"Route: {incident.event.route}.")
    heads = sorted(
        (head for evidence in incident.event.evidence for head in evidence.heads),
        key=lambda head: -head.log10_evidence,
    )[:_SHOWN]
    if heads:
        named = ", ".join(f"layer {head.layer} head {head.head} {head.feature} {head.effect:+.1f} sd" for head in heads)
        lines.append(f"Heads that moved most: {named}.")
    if incident.exhibits.documents:
        lines.append("Documents: " + ", ".join(document.id for document in incident.exhibits.documents[:_SHOWN]) + ".")
    if incident.exhibits.requests:
        lines.append("Requests: " + ", ".join(item.request_id for item in incident.exhibits.requests[:_SHOWN]) + ".")
    if incident.exhibits.prompts:
        kinds = (f"{one.kind} on {one.route or 'no route'} ({one.requests})" for one in incident.exhibits.prompts[:_SHOWN])
        lines.append("Kinds of prompts that draw it, with example requests: " + ", ".join(kinds) + ".")
    return "\n".join(lines)
