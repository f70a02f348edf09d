"""``headwatch store purge``: remove what is kept of somebody or something, for good."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Config
    from headwatch.identifiers import Identifier


def add_purge_arguments(action: argparse.ArgumentParser) -> None:
    """Declare the arguments of the action."""
    action.description = (
        "Remove rows, parts of rows and files for good, and prove it by a second look.  The sidecar must be stopped.  "
        "Series of heads, rollups and baselines name nobody and stay."
    )
    what = action.add_mutually_exclusive_group(required=True)
    for kind in ("user", "tenant", "document"):
        what.add_argument(f"--{kind}", metavar="NAME", help=f"everything of this {kind}, named as clients do, hashed or not")
    what.add_argument("--before", metavar="TIME", help="everything from before this time (ISO; UTC where it has no zone)")
    action.add_argument("--yes", action="store_true", help="do not ask")


def run_purge(namespace: argparse.Namespace, config: Config) -> int:
    """Purge; return 1 where something is left.

    Raises:
        CommandError: Nobody said yes, or a file or the spool is in the way.
        HeadwatchError: The store, the history or the salts cannot be used.
    """
    from headwatch.cli.incidents import this_person
    from headwatch.cli.output import print_json, stdout_to_stderr
    from headwatch.purge.run import purge

    kind, value, before_ns = _asked(namespace)
    _confirm(namespace, f"everything of the {kind} {value!r}" if kind else f"everything from before {namespace.before}")
    with stdout_to_stderr():
        report = purge(config, kind, value, before_ns, this_person(), _say)
    if namespace.json:
        print_json(report)
    else:
        for place, count in report.removed.items() or {"nothing was kept of it": 0}.items():
            print(f"{place}: {count} removed" if count else place)
        print(f"a second look found {report.left or 'nothing'}")
        for service, instances in report.others.items():
            print(f"also in this store: {service} ({', '.join(instances) or 'no instance that is known'}); run the purge on "
                  "the host of its sidecar too")  # fmt: skip
    return 1 if report.left else 0


def _asked(namespace: argparse.Namespace) -> tuple[Identifier | None, str, int]:
    from headwatch.errors import CommandError

    if namespace.user is not None:
        return "user", namespace.user, 0
    if namespace.tenant is not None:
        return "tenant", namespace.tenant, 0
    if namespace.document is not None:
        return "document", namespace.document, 0
    try:
        before = datetime.fromisoformat(namespace.before)
    except ValueError:
        raise CommandError(f"--before {namespace.before!r} is no ISO time: 2026-11-01, or 2026-11-01T12:00") from None
    before = before if before.tzinfo else before.replace(tzinfo=UTC)
    return None, "", int(before.timestamp()) * 10**9


def _confirm(namespace: argparse.Namespace, what: str) -> None:
    from headwatch.errors import CommandError

    if namespace.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("a purge cannot be undone: say --yes where nobody can be asked")
    print(f"Remove {what} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was removed")


def _say(message: str) -> None:
    print(f"purge: {message}", file=sys.stderr, flush=True)
