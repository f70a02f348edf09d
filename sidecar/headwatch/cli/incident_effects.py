"""``headwatch incident effects``: how far the heads of an incident moved, as the running sidecar counts it from its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headwatch.cli.api import call
from headwatch.cli.output import print_json, print_table
from headwatch.drift.effects.sizes import FEWEST, EffectSizes, Size
from headwatch.errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from headwatch.config_file import Loaded

_HEADS = ("layer", "head", "feature", "route", "requests", "mean", "Wasserstein", "Jensen-Shannon", "PSI")
_PATH = "/api/v1/incidents"


def run(asked: argparse.Namespace, loaded: Loaded) -> None:
    """Ask the sidecar and print.

    Raises:
        CommandError: No sidecar answers, its store is off, or it has no such incident.
    """
    import msgspec

    from headwatch.doctor.context import sidecar_url

    url = asked.url or sidecar_url(loaded)
    found: dict[str, Any] = call(url, f"{_PATH}/{quote(asked.id or _latest(url), safe='')}/effects")
    if asked.json:
        print_json(found)
    else:
        _print(found, msgspec.convert(found["heads"], list[EffectSizes]))


def _latest(url: str) -> str:
    """Return the id of the latest incident that is open, else of the latest."""
    found = call(url, f"{_PATH}?state=live&limit=1") or call(url, f"{_PATH}?limit=1")
    if not found:
        raise CommandError("no incident has been kept yet")
    latest: str = found[0]["id"]
    return latest


def _print(found: dict[str, Any], heads: Sequence[EffectSizes]) -> None:
    from headwatch.incident.paint import clean
    from headwatch.incident.screen import moment

    if not heads:
        print(f"{found['incident']} names no heads of traffic.")
        return
    print(f"{found['incident']}: sampled requests from {moment(found['first_ns'])}, since {moment(found['since_ns'])}, "
          f"to {moment(found['last_ns'])} UTC")  # fmt: skip
    several = len({one.model for one in heads}) > 1
    print_table(
        (*(("model",) if several else ()), *_HEADS),
        [
            (
                *((clean(one.model),) if several else ()), str(one.layer), str(one.head),
                one.feature + ("*" if one.phase == "prefill" else ""), clean(one.route) or "all",
                f"{one.requests_before} → {one.requests_since}", f"{_figure(one.mean_before)} → {_figure(one.mean_since)}",
                *map(_size, (one.wasserstein, one.jensen_shannon, one.psi)),
            )
            for one in heads
        ],
    )  # fmt: skip
    print("In brackets what chance alone gives: that much or more in half of the deals, and in one of twenty.")
    if any(one.psi is None for one in heads):
        print(f"-: fewer than {FEWEST} requests before or since.")
    if any(one.phase == "prefill" for one in heads):
        print("*: named for rows of the prompt; the store keeps heads over generated rows, and those are what is shown here.")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _size(size: Size | None) -> str:
    return "-" if size is None else f"{size.value:.2g} ({size.by_chance:.2g}, {size.rarely_by_chance:.2g})"
