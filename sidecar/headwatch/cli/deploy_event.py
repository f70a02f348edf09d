"""``headwatch deploy-event``: mark a release, so that what begins with it is explained, or expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

MAX_TITLE = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("title", help="what is released, in a few words")
    parser.add_argument("--revision", default="", help="of the model, image or index")
    parser.add_argument("--planned", type=_planned, default=0.0, metavar="DURATION",
                        help="open a maintenance window of, for example, 30m (at most 7d): what begins in it is recorded as a "
                             "known change, pages nobody, and baselines are learned anew")  # fmt: skip
    parser.add_argument("--who", help="who releases it (default: you)")
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def _planned(text: str) -> float:
    """Return *text* in seconds.

    Raises:
        argparse.ArgumentTypeError: It is no duration, or longer than a maintenance window is looked for.
    """
    from argparse import ArgumentTypeError

    from headwatch.cli.durations import duration
    from headwatch.incident.silences import MAX_PLANNED_SECONDS

    seconds = duration(text)
    if seconds > MAX_PLANNED_SECONDS:
        raise ArgumentTypeError(f"{text!r}: a maintenance window lasts {MAX_PLANNED_SECONDS / 86_400:.0f} days at most")
    return seconds


def run(namespace: argparse.Namespace) -> int:
    """Write the release down and print it; return 0.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: The title is empty or too long.
        IncidentError: The file of incidents cannot be used.
    """
    from headwatch.cli.incidents import open_book, this_person
    from headwatch.cli.output import print_json
    from headwatch.config_file import load
    from headwatch.errors import CommandError
    from headwatch.incident.screen import lasted, moment

    title = " ".join(namespace.title.split())
    if not title or len(title) > MAX_TITLE:
        raise CommandError(f"a title has 1 to {MAX_TITLE} characters, this one has {len(title)}")
    with open_book(load(path=namespace.config).config, make=True) as book:
        deploy = book.calendar.add_deploy(
            title, revision=namespace.revision, who=namespace.who or this_person(), planned_seconds=namespace.planned
        )
    if namespace.json:
        print_json(deploy)
        return 0
    print(f"Marked at {moment(deploy.time_ns)} UTC: {deploy.title}"
          + (f" ({deploy.revision})" if deploy.revision else "") + f", by {deploy.who}")  # fmt: skip
    if deploy.planned_seconds:
        print(f"For {lasted(int(deploy.planned_seconds * 1e9))} what begins is taken as planned: no page, and baselines are "
              "learned anew.  Injections and forbidden or missing documents page all the same.")  # fmt: skip
    return 0
