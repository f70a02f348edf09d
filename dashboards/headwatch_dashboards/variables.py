"""What can be chosen above a dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.model import PHASES, WINDOW_FEATURES
from headwatch_dashboards.grafana import DATASOURCE
from headwatch_dashboards.names import (
    FEATURE_VARIABLE,
    INCIDENT_VARIABLE,
    MODEL_VARIABLE,
    PHASE_VARIABLE,
    ROUTE_VARIABLE,
)
from headwatch_dashboards.queries import grounding, incidents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch_dashboards.grafana import Json


def route() -> Json:
    """Return the choice of routes."""
    return _asked(ROUTE_VARIABLE, "Route", "Routes seen in this range, as clients name them.", grounding.routes())


def model() -> Json:
    """Return the choice of models."""
    return _asked(MODEL_VARIABLE, "Model", "Models seen in this range. Heads of two models cannot be compared.",
                  grounding.models())


def incident() -> Json:
    """Return the choice of one incident."""
    return _asked(INCIDENT_VARIABLE, "Incident", "Incidents that opened in this range or are not resolved, the latest first.",
                  incidents.ids(), one=True)


def phase() -> Json:
    """Return the choice of a phase."""
    phases = tuple(reversed(PHASES))  # decode first: grounding is about what is generated
    return _listed(PHASE_VARIABLE, "Phase", "Rows of generated tokens (decode) or of the prompt (prefill).", phases)


def feature() -> Json:
    """Return the choice of a feature of heads."""
    first = ("lookback", "document_mass")
    features = (*first, *(name for name in WINDOW_FEATURES if name not in first))
    return _listed(FEATURE_VARIABLE, "Feature", "What is shown of each head.", features)


def _asked(name: str, label: str, description: str, sql: str, *, one: bool = False) -> Json:
    everything: Json = {"text": ["All"], "value": ["$__all"], "selected": True}
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"editorType": "sql", "rawSql": sql, "refId": name},
        "refresh": 2,  # again when the time range changes
        "sort": 0,  # as the query sorts
        "multi": not one,
        "includeAll": not one,
        "current": {"text": "", "value": ""} if one else everything,
        "options": [],
    }


def _listed(name: str, label: str, description: str, values: Sequence[str]) -> Json:
    options: list[Json] = [{"text": value, "value": value, "selected": index == 0} for index, value in enumerate(values)]
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "custom",
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "current": options[0],
        "options": options,
    }
