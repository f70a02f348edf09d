"""Check the dashboards: the files against the code, Grafana's types and our rules; with a store, every query on it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from headwatch_dashboards.alerts import RULES
from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.build import DASHBOARDS, differences
from headwatch_dashboards.lint import bound_problems, link_problems, lint, text_problems
from headwatch_dashboards.macros import QueryRange
from headwatch_dashboards.query_check import connect, run_queries, run_rules
from headwatch_dashboards.schema_check import schema_problems

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch_dashboards.query_check import QueryReport


def check_files(folder: Path) -> list[str]:
    """Return everything that is wrong with the files below *folder*; needs neither Grafana nor a store."""
    problems = differences(folder)
    dashboards = []
    for path in _files(folder):
        try:
            dashboards.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            problems.append(f"{path}: not valid JSON: {error}")
    for dashboard in dashboards:
        problems += [f"{dashboard.get('uid')}: {problem}" for problem in check_dashboard(dashboard)]
    problems += link_problems(dashboards)
    for rule in RULES:
        found = [*bound_problems(rule.sql), *text_problems(rule.sql, {})]
        problems += [f"alert rule {rule.title!r}: {problem}" for problem in found]
    return problems


def check_dashboard(dashboard: dict[str, Any]) -> list[str]:
    """Return where *dashboard* breaks Grafana's types or our rules."""
    return [*schema_problems(dashboard), *lint(dashboard)]


def check_store(folder: Path, url: str, hours: float) -> list[QueryReport]:
    """Run every query of the dashboards and the rules below *folder* on the store at *url*, over the last *hours*.

    Raises:
        StoreError: The store cannot be opened.
    """
    now = int(time.time()) + 1
    query_range = QueryRange(now - int(hours * 3600), now)
    client = connect(url)
    try:
        reports = []
        for path in _files(folder):
            reports += run_queries(json.loads(path.read_text(encoding="utf-8")), client, query_range)
        return [*reports, *run_rules(client, query_range)]
    finally:
        client.close()


def _files(folder: Path) -> list[Path]:
    return [path for board in BOARDS if (path := folder / DASHBOARDS / f"{board.slug}.json").is_file()]
