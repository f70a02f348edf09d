"""``headwatch dashboards``: write the Grafana files, or check them (and their queries on a store)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from headwatch_dashboards.query_check import QueryReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{build,check}")
    build = actions.add_parser("build", help="write dashboards and alert rules for Grafana, and rules for Prometheus")
    check = actions.add_parser("check", help="check the written files; with --store also every query")
    for action in (build, check):
        action.add_argument("--out", type=Path, default=Path("dashboards"), metavar="DIR",
                            help="folder of the files, with grafana/ and prometheus/ below it (default: dashboards)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    build.add_argument("--grafana-url", default="http://localhost:3000", metavar="URL",
                       help="where links of Prometheus' alerts lead (default: http://localhost:3000)")
    check.add_argument("--store", metavar="URL", help="run every query on this store and require rows: chdb:///path of a "
                                                      "sidecar that has stopped, or http://user:password@host:8123/database")
    check.add_argument("--hours", type=float, default=24.0, help="length of the time range, up to now (default: 24)")


def run(namespace: argparse.Namespace) -> int:
    """Build or check; return 0 where all is well and 1 where the check found something.

    Raises:
        CommandError: A library that the check needs is not installed, or the folder holds no dashboard.
        StoreError: The store cannot be opened.
    """
    return _build(namespace) if namespace.action == "build" else _check(namespace)


def _build(namespace: argparse.Namespace) -> int:
    from headwatch.cli.output import print_json
    from headwatch.errors import CommandError
    from headwatch_dashboards.build import write

    try:
        written = write(namespace.out, namespace.grafana_url)
    except OSError as error:
        raise CommandError(f"--out {namespace.out}: cannot be written: {error.strerror}") from error
    if namespace.json:
        print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))
    return 0


def _check(namespace: argparse.Namespace) -> int:
    from headwatch.cli.output import print_json
    from headwatch.errors import CommandError
    from headwatch_dashboards.build import DASHBOARDS
    from headwatch_dashboards.check import check_files, check_store

    if not (namespace.out / DASHBOARDS).is_dir():
        raise CommandError(f"--out {namespace.out}: no dashboard there; `headwatch dashboards build` writes it")
    problems = check_files(namespace.out)
    reports: list[QueryReport] = []
    if namespace.store:
        reports = check_store(namespace.out, namespace.store, namespace.hours)
        problems += [f"{report.where}: {report.problem}" for report in reports if report.problem]
    if namespace.json:
        print_json({
            "problems": problems,
            "queries": [
                {"where": report.where, "rows": report.rows, "seconds": round(report.seconds, 4), "problem": report.problem}
                for report in reports
            ],
        })
        return 1 if problems else 0
    for report in reports:
        print(f"{report.rows:>7} rows  {report.seconds * 1000:>7.0f} ms  {report.where}")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"dashboards: {len(problems)} problems" if problems else "dashboards: in order")
    return 1 if problems else 0
