"""``headwatch compare A B``: two deployments, releases, arms or time ranges, held side by side within strata."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwatch.cli.output import print_json

if TYPE_CHECKING:
    import argparse

    from headwatch.compare.side import Source

SAME, DIFFERENT = 0, 1
ARM, LIVE = "arm:", "live"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = ("FILE, FILE@FROM..TO (a history or recording; window numbers or ISO times), live@FROM..TO (the history that the "
            "sidecar of this configuration keeps) or arm:NAME (an arm of an experiment)")  # fmt: skip
    parser.add_argument("first", metavar="A", help=f"the side to start from: {what}")
    parser.add_argument("second", metavar="B", help="the side that is held against it, likewise")
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG), for live@…")
    parser.add_argument("--model", default="", help="model, where a history holds several")
    parser.add_argument("--revision", default="", help="revision for both sides (default: whatever the windows hold)")
    parser.add_argument("--url", default="http://127.0.0.1:9464", metavar="URL",
                        help="the sidecar that is asked about arms (default: %(default)s)")  # fmt: skip
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
        found = compare(_source(namespace.first, namespace), _source(namespace.second, namespace), settings, triage)
    except HeadwatchError as error:
        raise ConfigError(str(error)) from error
    if namespace.json:
        print_json(found)
    else:
        print(render(found))
    return DIFFERENT if found.verdict is not None and found.verdict.drift_class not in allowed else SAME


def _source(text: str, namespace: argparse.Namespace) -> Source:
    from headwatch.compare.arms import Arm
    from headwatch.compare.recorded import Recorded, parse_range, parse_times

    if text.startswith(ARM):
        return Arm(*parse_times(text.removeprefix(ARM)), reader=_Api(namespace.url))
    chosen = parse_range(text)
    if str(chosen.path) == LIVE:
        from headwatch.config_file import load
        from headwatch.places import HISTORY, drift_folder

        chosen = replace(chosen, path=drift_folder(load(path=namespace.config).config) / HISTORY)
    return Recorded(chosen, namespace.model, namespace.revision, text)


class _Api:
    """The sidecar's API, as a reader of arms."""

    def __init__(self, url: str) -> None:
        self._url = url

    def units(
        self, arm: str, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = 2**63 - 1
    ) -> dict[str, Any]:
        """Return what ``/api/v1/units`` answers."""
        from urllib.parse import urlencode

        from headwatch.cli.api import call

        asked = {"arm": arm, "length": length, "limit": limit, "since_ns": since_ns, "until_ns": until_ns}
        found: dict[str, Any] = call(self._url, f"/api/v1/units?{urlencode(asked | ({'feature': feature} if feature else {}))}")
        return found
