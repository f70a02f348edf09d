"""``headwatch doctor``: what is wrong with an installation or a running pair, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from headwatch.doctor.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--url", type=_address,
                        help="the sidecar's address (default: http.host and http.port of the configuration)")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Examine and print; return 1 where a check fails, else 0."""
    from headwatch.cli.output import print_json
    from headwatch.doctor.context import gather
    from headwatch.doctor.report import examine

    report = examine(gather(url=namespace.url, config=namespace.config))
    if namespace.json:
        print_json(report)
    else:
        _print(report)
    return 1 if report.status == "fail" else 0


def _address(text: str) -> str:
    from argparse import ArgumentTypeError

    from headwatch.doctor.probe import check_url
    from headwatch.errors import CommandError

    try:
        check_url(text)
    except CommandError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def _print(report: Report) -> None:
    width = max(len(finding.name) for finding in report.checks)
    for finding in report.checks:
        print(f"{finding.status:<4}  {finding.name:<{width}}  {finding.message}")
        if finding.action:
            print(f"{'':<{width + 6}}  → {finding.action}")
    print(f"doctor: {report.count('fail')} to mend, {report.count('warn')} to know, {report.count('ok')} in order")
