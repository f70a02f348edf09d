"""Check the dashboards: the files against the code, Grafana's types and our rules; with a store, every query on it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from headwatch_dashboards.build import DASHBOARD_FILE, differences
from headwatch_dashboards.lint import bound_problems, lint
from headwatch_dashboards.macros import QueryRange
from headwatch_dashboards.queries.alert import canaries_behind, grounding_drop, paging_incidents
from headwatch_dashboards.query_check import connect, run_queries
from headwatch_dashboards.schema_check import schema_problems

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch_dashboards.query_check import QueryReport


def check_files(folder: Path) -> list[str]:
    """Return everything that is wrong with the files below *folder*; needs neither Grafana nor a store."""
    problems = differences(folder)
    path = folder / DASHBOARD_FILE
    if path.is_file():
        try:
            dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            return [*problems, f"{path}: not valid JSON: {error}"]
        problems += check_dashboard(dashboard)
    for sql in (paging_incidents(), canaries_behind(), grounding_drop()):
        problems += [f"alert rule: {problem}" for problem in bound_problems(sql)]
    return problems


def check_dashboard(dashboard: dict[str, Any]) -> list[str]:
    """Return where *dashboard* breaks Grafana's types or our rules."""
    return [*schema_problems(dashboard), *lint(dashboard)]


def check_store(folder: Path, url: str, hours: float) -> list[QueryReport]:
    """Run every query of the dashboard below *folder* on the store at *url*, over the last *hours*.

    Raises:
        StoreError: The store cannot be opened.
    """
    dashboard: dict[str, Any] = json.loads((folder / DASHBOARD_FILE).read_text(encoding="utf-8"))
    now = int(time.time()) + 1
    client = connect(url)
    try:
        return run_queries(dashboard, client, QueryRange(now - int(hours * 3600), now))
    finally:
        client.close()
