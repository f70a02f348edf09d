"""An incident as one HTML file that needs nothing else: no script, no font, no picture from anywhere.

It holds what ``headwatch incident show`` says, with pictures, the whole evidence and a query for every name, and can be mailed,
kept with a post-mortem, and opened years later.  Ids of documents and requests are in it; text of prompts is not, since
headwatch has none.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe

from headwatch.incident import charts
from headwatch.incident.figure_text import effect_text, figure, place
from headwatch.incident.screen import lasted, moment
from headwatch.incident.trail import leads_of
from headwatch.pictures import figures
from headwatch.pictures.colours import diverging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import HeadFinding, Incident
    from headwatch.incident.series import HeadMap, Series
    from headwatch.incident.shelf import AuditEntry

_HEADS = 16
_LEAST_BOUND = 2.0
"""Standard deviations at the ends of the colour scale, at least: noise must not look like an alarm."""


def render(
    incident: Incident, audit: Sequence[AuditEntry], series: Series, runbook: str
) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Callable[..., str]] = {
        "moment": moment, "figure": lambda pair: figure(*pair), "effect": effect_text, "place": place,
    }  # fmt: skip
    environment.filters.update(filters)
    template = resources.files("headwatch.incident").joinpath("data", "report.html.j2").read_text(encoding="utf-8")
    event = incident.event
    return environment.from_string(template).render(
        incident=incident,
        verdict=incident.verdict,
        event=event,
        again=[line for line in audit if line.what == "merged"],
        audit=[line for line in audit if line.what != "merged"],
        runbook=runbook,
        found_after=lasted(event.time_ns - event.since_ns),
        promised=lasted(int(event.interval_windows * event.window_seconds * 1e9)),
        heads=ranked_heads(incident)[:_HEADS],
        lines=[(line.name, _safe(charts.run_of(line, event.since_ns, event.time_ns))) for line in series.lines],
        head_maps=[_map(one) for one in series.heads],
        documents=_safe(charts.shares(incident.exhibits.documents)) if incident.exhibits.documents else None,
        leads=leads_of(incident),
    )


def ranked_heads(incident: Incident) -> list[tuple[str, HeadFinding]]:
    """Return every head that is named, with its route, most evidence first."""
    found = [(one.route, head) for one in incident.event.evidence for head in one.heads]
    return sorted(found, key=lambda pair: (-pair[1].log10_evidence, -abs(pair[1].effect)))


def _map(one: HeadMap) -> dict[str, Any]:
    known = [abs(value) for row in one.effects for value in row if value is not None]
    bound = max(sorted(known)[int(0.98 * (len(known) - 1))] if known else 0.0, _LEAST_BOUND)
    scale = figures.Scale(-bound, bound, diverging)
    step = figures.ticks_between(0.0, bound, 2)[-1]
    return {
        "about": one,
        "picture": _safe(figures.heatmap(one.feature, list(range(len(one.effects))), one.effects, scale)),
        "key": _safe(figures.colour_key("effect, standard deviations of the windows before", scale, (-step, 0, step))),
    }


def _safe(svg: str) -> markupsafe.Markup:
    return markupsafe.Markup(svg)  # noqa: S704 - figures and charts escape whatever they take from outside
