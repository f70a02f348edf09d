"""``headwatch baseline``: what normal is, version by version; on the files, whether the sidecar runs or not.

A running sidecar notices at its next window what was put in force here.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from headwatch.config import Config
    from headwatch.drift.keeper import Keeper
    from headwatch.drift.kept import BaselineEntry, NewBaseline
    from headwatch.drift.learning import Span
    from headwatch.drift.parts import Part

ACTIONS = {
    "list": "versions that are kept, and which one is in force",
    "show": "one version, part by part",
    "learn": "learn a version from windows that are kept; in force only with --promote",
    "pin": "put a version, or one from a file, in force until a person changes it",
    "promote": "put a version in force; newer ones are learned as ever",
    "rollback": "put in force again what was in force before",
    "diff": "how one version differs from another, in standard deviations",
    "export": "write a version to a file",
    "import": "keep a version from a file; in force only with --promote",
}
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from headwatch.cli.drift_files import add_range

    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name == "show":
            action.add_argument("version", type=int, nargs="?", help="its number (default: the one in force)")
        if name in {"promote", "export"}:
            action.add_argument("version", type=int, help="its number, as `headwatch baseline list` shows it")
        if name == "pin":
            action.add_argument("what", help="number of a version, a file that `baseline export` wrote, or a history")
        if name == "diff":
            action.add_argument("one", type=int, help="number of a version")
            action.add_argument("other", type=int, nargs="?", help="number of another (default: the one in force)")
            action.add_argument("--limit", type=int, default=_SHOWN, help=f"how many differences (default: {_SHOWN})")
        if name in {"export", "import"}:
            action.add_argument("file", type=Path, metavar="FILE")
        if name == "learn":
            add_range(action)
            action.add_argument("--all", action="store_true", dest="every",
                                help="also from windows around pages and incidents; never from faulty ones")  # fmt: skip
        if name in {"learn", "import", "pin"}:
            action.add_argument("--note", default="", help="for whoever reads the list")
        if name in {"learn", "import"}:
            action.add_argument("--promote", action="store_true", help="put it in force")


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked and print it; return 0.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: There is nothing to learn from, or nothing to show.
        DriftStateError: There is no such version, or a file cannot be used.
    """
    from headwatch.cli.drift_files import open_keeper
    from headwatch.config_file import load

    config = load(path=namespace.config).config
    actions: dict[str, Callable[[argparse.Namespace, Config, Keeper], None]] = {
        "list": _list, "show": _show, "learn": _learn, "pin": _pin, "promote": _promote, "rollback": _rollback, "diff": _diff,
        "export": _export, "import": _import,
    }  # fmt: skip
    with open_keeper(config, make=namespace.action in {"list", "learn", "import", "pin"}) as keeper:
        actions[namespace.action](namespace, config, keeper)
    return 0


def _list(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from headwatch.cli.drift_files import moment
    from headwatch.cli.output import print_json, print_table

    del config
    entries = keeper.baselines()
    if asked.json:
        print_json({"baselines": [_plain(keeper, entry) for entry in entries]})
    elif not entries:
        print("No baseline is kept yet: the first one is learned by itself once there are windows enough.")
    else:
        print_table(
            ("version", "in force", "origin", "made, UTC", "windows", "parts", "note"),
            [
                (str(entry.version), "yes" if entry.in_force else "", entry.origin, moment(entry.created_ns),
                 str(entry.windows), str(len(keeper.parts(entry.version))), entry.note)
                for entry in entries
            ],
        )  # fmt: skip


def _show(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from headwatch.cli.output import print_json, print_table
    from headwatch.drift.versions import read_parts
    from headwatch.drift.weights import clocks

    entry = keeper.baseline(_or_in_force(asked.version, keeper))
    parts, orders = read_parts(keeper, entry.version)
    pager, _ = clocks(config.drift)
    weights = pager.of_parts(orders, {key: part.route for key, part in parts.items()})
    told = [{**_part(part), "newcomer": orders[key], "weight": weights[key]} for key, part in parts.items()]
    if asked.json:
        print_json({**_plain(keeper, entry), "parts": told})
        return
    _print_entry(entry)
    print_table(
        ("watches", "weight", "names", "streams", "rows", "stratum or scope"),
        [
            ("heads" if one["kind"] == "heads" else "signals", f"{one['weight']:.3f}", str(len(one["names"])),
             str(one["streams"]), f"{one['rows']:.0f}",
             one["label"] + (f" ({len(one['members'])} pooled)" if one["members"] else ""))
            for one in told
        ],
    )  # fmt: skip


def _learn(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from headwatch.cli.drift_files import chosen, open_history
    from headwatch.drift.learning import Span

    with open_history(config, asked.history) as history:
        first, last = chosen(history, asked)
        suspect = keeper.suspects(first, last) if asked.history is None else {}
        left_out = {number for number, why in suspect.items() if why == "telemetry" or not asked.every}
        if left_out:
            print(f"baseline: {len(left_out)} windows under suspicion are left out; --all takes those around pages too",
                  file=sys.stderr)  # fmt: skip
        new = _learned(Span(history, first, last, frozenset(left_out)), config, asked.note)
    _keep(asked, keeper, new)


def _pin(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from dataclasses import replace

    from headwatch.cli.drift_files import window_seconds
    from headwatch.drift.baseline_file import from_path
    from headwatch.errors import CommandError

    if asked.what.isdecimal():
        version = int(asked.what)
        keeper.pin(version, asked.note)
        _put_in_force(asked, keeper, version)
        return
    path = Path(asked.what)
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file; give the number of a version or a file")
    asked.promote = True
    new = from_path(path, config.drift, window_seconds(config), time.time_ns())
    _keep(asked, keeper, replace(new, note=asked.note or new.note or f"from {path.name}"))


def _promote(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    del config
    _put_in_force(asked, keeper, asked.version)


def _rollback(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    del config
    _say_in_force(asked, keeper, keeper.rollback())


def _diff(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from headwatch.cli.output import print_json, print_table
    from headwatch.drift.versions import creep, differences, read_parts
    from headwatch.incident.paint import clean

    del config
    other = _or_in_force(asked.other, keeper)
    (mine, _), (theirs, _) = read_parts(keeper, asked.one), read_parts(keeper, other)
    found = differences(mine, theirs)[: max(asked.limit, 0)]
    alone = {"only_in_one": [key.text for key in mine if key not in theirs],
             "only_in_other": [key.text for key in theirs if key not in mine]}  # fmt: skip
    if asked.json:
        print_json({"one": asked.one, "other": other, "rms": creep(mine, theirs), **alone, "differences": found})
        return
    print(f"Version {other} against {asked.one}: {creep(mine, theirs):.3f} standard deviations (root mean square).")
    for name, labels in alone.items():
        for label in labels:
            print(f"{name.replace('_', ' ')}: {clean(label)}")
    print_table(
        ("rms, sd", "largest, sd", "of", "before", "after", "spread", "feature or signal", "stratum or scope"),
        [
            (f"{one.rms:.3f}", f"{one.largest:+.3f}", f"layer {one.layer} head {one.head}" if one.kind == "heads" else "",
             f"{one.before:.4g}", f"{one.after:.4g}", f"x {one.spread:.2f}", one.name, one.label)
            for one in found
        ],
    )  # fmt: skip


def _export(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from headwatch.cli.output import print_json
    from headwatch.drift.baseline_file import write

    del config
    write(keeper, asked.version, asked.file)
    if asked.json:
        print_json({**_plain(keeper, keeper.baseline(asked.version)), "file": str(asked.file)})
    else:
        print(f"Version {asked.version} is in {asked.file}.")


def _import(asked: argparse.Namespace, config: Config, keeper: Keeper) -> None:
    from dataclasses import replace

    from headwatch.drift.baseline_file import read

    del config
    new = read(asked.file, "imported")
    _keep(asked, keeper, replace(new, note=asked.note or new.note or f"from {asked.file.name}"))


def _learned(span: Span, config: Config, note: str) -> NewBaseline:
    from headwatch.cli.drift_files import window_seconds
    from headwatch.drift.learning import FEWEST_WINDOWS
    from headwatch.drift.versions import learned
    from headwatch.errors import CommandError

    new = learned(span, config.drift, window_seconds(config), time.time_ns(), note)
    if new is None:
        raise CommandError(f"too few windows: no stratum or scope is in {FEWEST_WINDOWS} of those that may be learned from")
    if new.windows < config.drift.min_baseline_windows:
        print(f"baseline: {new.windows} windows; a baseline that is learned by itself has "
              f"{config.drift.min_baseline_windows} at least", file=sys.stderr)  # fmt: skip
    return new


def _keep(asked: argparse.Namespace, keeper: Keeper, new: NewBaseline) -> None:
    version = keeper.add(new)
    if asked.promote:
        _put_in_force(asked, keeper, version)
        return
    from headwatch.cli.output import print_json

    if asked.json:
        print_json(_plain(keeper, keeper.baseline(version)))
    else:
        print(f"Version {version} is kept, from {new.windows} windows; `headwatch baseline promote {version}` uses it.")


def _put_in_force(asked: argparse.Namespace, keeper: Keeper, version: int) -> None:
    from headwatch.cli.incidents import this_person

    keeper.promote(version, time.time_ns(), this_person())
    _say_in_force(asked, keeper, version)


def _say_in_force(asked: argparse.Namespace, keeper: Keeper, version: int) -> None:
    from headwatch.cli.output import print_json

    if asked.json:
        print_json(_plain(keeper, keeper.baseline(version)))
    else:
        print(f"Version {version} is in force; a running sidecar goes over to it with its next window.")


def _or_in_force(version: int | None, keeper: Keeper) -> int:
    from headwatch.drift.kept import NONE
    from headwatch.errors import CommandError

    if version is not None:
        return version
    _, current = keeper.in_force()
    if current == NONE:
        raise CommandError("no baseline is in force; name a version")
    return current


def _plain(keeper: Keeper, entry: BaselineEntry) -> dict[str, Any]:
    """Return *entry* for JSON; what it says of traffic and telemetry is for machines that ask for one version."""
    return {
        "version": entry.version, "in_force": entry.in_force, "origin": entry.origin, "created_ns": entry.created_ns,
        "first_window": entry.first_window, "last_window": entry.last_window, "windows": entry.windows, "note": entry.note,
        "parts": list(keeper.parts(entry.version)),
    }  # fmt: skip


def _part(part: Part) -> dict[str, Any]:
    return {
        "kind": part.kind, "label": part.label, "model": part.model, "route": part.route, "names": list(part.names),
        "streams": len(part.chosen), "rows": float(part.streams.rows.mean()), "members": list(part.members),
        "cycles_hours": [period / 3600.0 for period in part.baseline.periods],
    }  # fmt: skip


def _print_entry(entry: BaselineEntry) -> None:
    from headwatch.cli.drift_files import moment

    force = ", in force" if entry.in_force else ""
    print(f"Version {entry.version}{force}: {entry.origin} {moment(entry.created_ns)} UTC from {entry.windows} windows "
          f"({entry.first_window} to {entry.last_window}){': ' if entry.note else ''}{entry.note}")  # fmt: skip
