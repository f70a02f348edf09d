"""``headwatch compare A B``: two deployments, releases, arms or time ranges, held side by side within strata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.cli.output import print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from headwatch.compare.selector import Selector
    from headwatch.compare.side import Source
    from headwatch.config import Config
    from headwatch.findings import DeployEvent
    from headwatch.records import Selection

SAME, DIFFERENT = 0, 1
ARM, LIVE, REQUESTS = "arm:", "live", "requests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from headwatch.cli.durations import duration

    what = ("PLACE or PLACE[model=…,revision=…,adapter=…], with @RANGE behind it or not; a place is a FILE (a history or "
            "recording), live (the history that the sidecar of this configuration keeps), requests (those in the store) or "
            "arm:NAME (those of an arm of an experiment); a range is FROM..TO (window numbers or ISO times), before:TITLE or "
            "after:TITLE of a release that was marked")  # fmt: skip
    parser.add_argument("first", metavar="A", help=f"the side to start from: {what}")
    parser.add_argument("second", metavar="B", help="the side that is held against it, likewise")
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG), for live")
    parser.add_argument("--around", type=duration, default=86_400.0, metavar="DURATION",
                        help="longest range of before:TITLE and after:TITLE, for example 6h (default: 1d)")  # fmt: skip
    parser.add_argument("--url", default="http://127.0.0.1:9464", metavar="URL",
                        help="the sidecar that is asked about requests and arms (default: %(default)s)")  # fmt: skip
    parser.add_argument("--alpha", type=float, default=0.02,
                        help="chance of a false difference, over everything that is tested (default: 0.02)")  # fmt: skip
    parser.add_argument("--permutations", type=int, default=1999, help="labellings that are drawn (default: 1999)")
    parser.add_argument("--seed", type=int, default=0, help="decides which (default: 0)")
    parser.add_argument("--top", type=int, default=20, help="heads to list (default: 20)")
    parser.add_argument("--allow", default="", metavar="CLASSES",
                        help="classes, separated by commas, that exit with 0 all the same, for example: traffic")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(namespace: argparse.Namespace) -> int:
    """Compare; return 0 where no difference was found, 1 where there is one.

    Raises:
        ConfigError: The sides cannot be compared, whatever the reason: a build must be able to tell that from a difference.
    """
    from headwatch.compare.report import render
    from headwatch.compare.run import Settings, compare
    from headwatch.errors import ConfigError, HeadwatchError
    from headwatch.findings import CLASSES
    from headwatch.incident.triage import triage

    allowed = set(filter(None, namespace.allow.split(",")))
    if not allowed <= set(CLASSES):
        raise ConfigError(f"--allow {namespace.allow}: known classes are {', '.join(CLASSES)}")
    if not 0.0 < namespace.alpha < 0.5:  # noqa: PLR2004 - more than a coin is no test
        raise ConfigError(f"--alpha {namespace.alpha}: give a chance between 0 and 0.5")
    fewest = int(10 / namespace.alpha)
    if namespace.permutations < fewest:
        raise ConfigError(f"--permutations {namespace.permutations}: at level {namespace.alpha:g} give at least {fewest}")
    if namespace.seed < 0 or namespace.top < 0:
        raise ConfigError("--seed and --top must not be negative")
    settings = Settings(namespace.alpha, namespace.permutations, namespace.seed, namespace.top)
    try:
        found = compare(*_sources(namespace), settings, triage)
    except HeadwatchError as error:
        raise ConfigError(str(error)) from error
    if namespace.json:
        print_json(found)
    else:
        print(render(found))
    return DIFFERENT if found.verdict is not None and found.verdict.drift_class not in allowed else SAME


def _sources(namespace: argparse.Namespace) -> tuple[Source, Source]:
    from headwatch.compare.selector import parse_selector
    from headwatch.errors import ConfigError

    first, second = parse_selector(namespace.first), parse_selector(namespace.second)
    if (first.selection.adapter is None) != (second.selection.adapter is None):
        raise ConfigError(f"{first.text!r} and {second.text!r}: name the adapter of both sides or of none; [adapter=] is none")
    return _source(first, namespace), _source(second, namespace)


def _source(selector: Selector, namespace: argparse.Namespace) -> Source:
    from dataclasses import replace
    from pathlib import Path

    from headwatch.compare.ranges import parse_range
    from headwatch.compare.recorded import Recorded
    from headwatch.compare.stored import Stored
    from headwatch.errors import ConfigError

    text, place, selection = selector.text, selector.place, selector.selection
    if place == REQUESTS or place.startswith(ARM):
        api = _Api(namespace.url)
        part = parse_range(selector.part, text, api.releases, namespace.around)
        if not part.timed and part.times != (0, 2**63 - 1):
            raise ConfigError(f"{text!r}: requests have no window numbers; give times such as 2026-11-29T14:00")
        if place.startswith(ARM):
            selection = replace(selection, arm=place.removeprefix(ARM))
        return Stored(text, selection, *part.times, reader=api)
    if place == LIVE:
        from headwatch.config_file import load
        from headwatch.places import HISTORY, drift_folder

        config = load(path=namespace.config).config
        part = parse_range(selector.part, text, lambda: _releases(config), namespace.around)
        return Recorded(drift_folder(config) / HISTORY, part, selection, text)
    return Recorded(Path(place), parse_range(selector.part, text, lambda: _none(text)), selection, text)


def _releases(config: Config) -> Sequence[DeployEvent]:
    """Return the releases that were marked beside the history."""
    from headwatch.cli.incidents import incident_file, open_book

    if not incident_file(config).exists():
        return ()
    with open_book(config) as book:
        return book.calendar.deploys()


def _none(text: str) -> Sequence[DeployEvent]:
    from headwatch.errors import ConfigError

    raise ConfigError(f"{text!r}: a file knows no releases; give window numbers or times, or take live, requests or arm:NAME")


class _Api:
    """The sidecar's API, as a reader of requests and of releases."""

    def __init__(self, url: str) -> None:
        self._url = url

    def units(
        self, selection: Selection, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0,
        until_ns: int = 2**63 - 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what ``/api/v1/units`` answers."""
        asked = {"length": length, "limit": limit, "since_ns": since_ns, "until_ns": until_ns, **selection.given()}
        found: dict[str, Any] = self._call("units", asked | ({"feature": feature} if feature else {}))
        return found

    def signals(
        self, selection: Selection, length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = 2**63 - 1,
        first: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what ``/api/v1/signals`` answers."""
        asked = {"length": length, "limit": limit, "since_ns": since_ns, "until_ns": until_ns, "first": first}
        found: dict[str, Any] = self._call("signals", asked | selection.given())
        return found

    def releases(self) -> Sequence[DeployEvent]:
        """Return the latest releases in the store, those of ``/api/v1/deploys``."""
        from headwatch.findings import DeployEvent

        return [DeployEvent(**{name: row[name] for name in DeployEvent.__struct_fields__})
                for row in self._call("deploys", {"limit": 1000})]  # fmt: skip

    def _call(self, name: str, asked: dict[str, Any]) -> Any:
        from urllib.parse import urlencode

        from headwatch.cli.api import call

        return call(self._url, f"/api/v1/{name}?{urlencode(asked)}")
