"""The demo's report: one HTML file that needs nothing else, from what the sidecar's API answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

from headwatch.demo.timeline import Point, timeline
from headwatch.pictures import figures
from headwatch.pictures.colours import diverging, viridis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwatch.demo.api import SidecarApi
    from headwatch.demo.readback import DemoResult, PhaseStates
    from headwatch.pictures.figures import Matrix

HEALTHY, WRONG = "healthy", "wrong_documents"
PHASE_COLOURS = ("#0072b2", "#d55e00", "#666666")
"""Blue and vermillion of the Okabe-Ito palette, and grey."""
_WORST_HEADS = 12
_MAX_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class HeadTable:
    """Lookback of each head in one phase."""

    layers: list[int]
    mean: Matrix
    sd: Matrix

    @classmethod
    def read(cls, api: SidecarApi, phase: str) -> HeadTable:
        """Return the table of *phase* from the store."""
        answer = api.get("heads", arm=phase, feature="lookback")
        return cls(answer["layers"], answer["mean"], answer["sd"])


@dataclass(frozen=True, slots=True)
class WorstHead:
    """One head, and how far its lookback fell from right to wrong documents."""

    layer: int
    head: int
    healthy: float
    wrong: float
    effect: float
    """Difference over the pooled standard deviation of single requests (Cohen's d)."""
    retrieval: bool


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the report shows."""

    result: DemoResult
    states: Mapping[str, PhaseStates]
    healthy: HeadTable
    wrong: HeadTable
    requests: Sequence[Mapping[str, Any]]
    retrieval_heads: frozenset[tuple[int, int]]
    examples: Sequence[tuple[str, str, str]]
    """(phase, question, answer): the only thing that comes from the client, since the sidecar keeps no text."""
    about: Mapping[str, str]
    """What ran: model, versions, machine."""


def render_report(data: ReportData) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    template = resources.files("headwatch.demo").joinpath("data", "report.html.j2").read_text(encoding="utf-8")
    phases = [phase.name for phase in data.result.phases]
    colours = dict(zip(phases, PHASE_COLOURS, strict=True))
    difference = _difference(data.healthy.mean, data.wrong.mean)
    bound = max((abs(value) for row in difference for value in row if value is not None), default=0.0) or 0.1
    highest = max((value for row in data.healthy.mean + data.wrong.mean for value in row if value is not None), default=1.0)
    shared = figures.Scale(0.0, highest or 1.0, viridis)
    signed = figures.Scale(-bound, bound, diverging)
    step = figures.ticks_between(0.0, bound, 2)[-1]
    return environment.from_string(template).render(
        result=data.result,
        verdict=verdict(data.result),
        states=data.states,
        about=data.about,
        examples=data.examples,
        retrieval_heads=sorted(data.retrieval_heads),
        worst=worst_heads(data.healthy, data.wrong, data.retrieval_heads),
        heatmaps=[
            _safe(figures.heatmap("right documents", data.healthy.layers, data.healthy.mean, shared, data.retrieval_heads)),
            _safe(figures.heatmap("wrong documents", data.wrong.layers, data.wrong.mean, shared, data.retrieval_heads)),
            _safe(figures.heatmap("right minus wrong", data.healthy.layers, difference, signed, data.retrieval_heads)),
        ],
        keys=[
            _safe(figures.colour_key("lookback (both phases)", shared, figures.ticks_between(0.0, shared.high, 4))),
            _safe(figures.colour_key("difference of lookback", signed, (-step, 0, step))),
        ],
        timelines=[
            (title, _safe(timeline(title, _points(data.requests, column, phases), colours)))
            for title, column in _timelines(data)
        ],
    )  # fmt: skip


def read_requests(api: SidecarApi, phases: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of all requests of *phases*."""
    return [row for phase in phases for row in api.get("requests", arm=phase, limit=_MAX_REQUESTS)]


def verdict(result: DemoResult) -> str:
    """Return what the 95 % intervals of the phases say, in one sentence."""
    phases = {phase.name: phase for phase in result.phases}
    told = []
    columns = {"the retrieval heads": "grounding_ratio_retrieval_heads_ci95", "all heads": "grounding_ratio_ci95"}
    for words, column in columns.items():
        right, wrong = (getattr(phases.get(name), column, None) for name in (HEALTHY, WRONG))
        if right and wrong and (wrong[1] < right[0] or right[1] < wrong[0]):
            told.append(words)
    if not told:
        return "The 95 % intervals of right and wrong documents overlap: this run does not tell them apart."
    return ("Right and wrong documents are told apart, with 95 % intervals that do not overlap, by the grounding ratio over "
            + " and over ".join(told) + ".")


def worst_heads(
    healthy: HeadTable, wrong: HeadTable, retrieval: frozenset[tuple[int, int]], count: int = _WORST_HEADS
) -> list[WorstHead]:
    """Return the *count* heads whose lookback fell furthest, in standard deviations, the furthest first."""
    found = []
    for row, layer in enumerate(healthy.layers):
        for head, mean in enumerate(healthy.mean[row]):
            other = wrong.mean[row][head] if row < len(wrong.mean) else None
            spreads = (healthy.sd[row][head], wrong.sd[row][head] if row < len(wrong.sd) else None)
            if mean is None or other is None or None in spreads:
                continue
            pooled = math.sqrt(sum(spread * spread for spread in spreads if spread is not None) / 2)
            if pooled > 0:
                found.append(WorstHead(layer, head, mean, other, (other - mean) / pooled, (layer, head) in retrieval))
    return sorted(found, key=lambda item: item.effect)[:count]


def _difference(healthy: Matrix, wrong: Matrix) -> Matrix:
    return [
        [None if a is None or b is None else a - b for a, b in zip(right, other, strict=True)]
        for right, other in zip(healthy, wrong, strict=False)
    ]


def _timelines(data: ReportData) -> list[tuple[str, str]]:
    titles = [("Grounding ratio of each request, over all heads", "grounding_ratio")]
    if data.retrieval_heads:
        titles.insert(0, ("Grounding ratio of each request, over the retrieval heads", "grounding_ratio_retrieval_heads"))
    return titles


def _points(requests: Sequence[Mapping[str, Any]], column: str, phases: Sequence[str]) -> list[Point]:
    points = []
    for row in requests:
        if row["arm"] in phases:
            value = row[column]
            shown = row["state"] if value is None else f"{value:.3f}"
            label = f"{row['request_id']} · {row['route']} · {row['arm']}: {shown}"
            points.append(Point(int(row["time_ns"]), value, row["arm"], label))
    return points


def _safe(svg: str) -> Any:
    import markupsafe  # noqa: PLC0415 - comes with jinja2

    return markupsafe.Markup(svg)  # noqa: S704 - figures escape whatever they take from outside
