"""A side from the store: the requests of an arm, some consecutive ones to a unit.

The store makes the units (``/api/v1/units``), so a million requests cost as much as a thousand.  Figures and heads are read
one after the other and must speak of the same requests: what ends after the first answer is left out.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwatch.compare.side import Cell, Group, Heads, Series, Side
from headwatch.errors import CommandError
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.compare.side import Unit

MOST_BYTES = 8 * 1024 * 1024
"""Head values of one answer: of a large model fewer units are asked for."""
_LAST_NS = 2**63 - 1
_FLOAT_BYTES = 4


class UnitReader(Protocol):
    """Who can be asked about arms."""

    def units(
        self, arm: str, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = _LAST_NS
    ) -> dict[str, Any]:
        """Return the requests of *arm* as units of *length* requests."""
        ...


class Arm:
    """The requests of one arm, between two times."""

    def __init__(self, name: str, since_ns: int = 0, until_ns: int = _LAST_NS, *, reader: UnitReader) -> None:
        self._arm = name
        self._reader = reader
        self._since = since_ns
        first = reader.units(name, length=1, limit=1, since_ns=since_ns, until_ns=until_ns)
        self._size = int(first["requests"])
        latest = max((int(unit["last_ns"]) for unit in first["units"]), default=0)
        self._until = min(until_ns, latest + 1)  # requests that end from now on change nothing

    @property
    def name(self) -> str:
        """Return what the user called it."""
        return f"arm:{self._arm}"

    @property
    def unit(self) -> Unit:
        """Return that it consists of requests."""
        return "requests"

    def size(self) -> int:
        """Return how many requests there are."""
        return self._size

    def read(self, length: int, most: int) -> Side:
        """Return the side in at most *most* units of *length* requests, the latest ones.

        Raises:
            CommandError: It has no requests, or requests of several models, or the store changed meanwhile.
        """
        about = self._units("", length, most)
        if not about["units"]:
            raise CommandError(f"{self.name}: there are no requests with generated rows in it")
        if len(about["models"]) > 1:
            raise CommandError(f"{self.name} holds several models ({', '.join(about['models'])}): compare arms of one model")
        streams = about["layers"] * about["heads"]
        fitting = MOST_BYTES / (len(about["units"]) * streams * _FLOAT_BYTES)
        if fitting < 1:
            most = max(int(most * fitting), 1)
            about = self._units("", length, most)
        answers = [self._units(feature, length, most)["units"] for feature in DRIFT_FEATURES]
        return _side(self.name, about, answers, length)

    def _units(self, feature: str, length: int, limit: int) -> dict[str, Any]:
        return self._reader.units(self._arm, feature, length, limit, self._since, self._until)


def _side(name: str, about: dict[str, Any], answers: Sequence[Sequence[dict[str, Any]]], length: int) -> Side:
    entries = about["units"]
    keys = [_key(entry) for entry in entries]
    if any([_key(entry) for entry in answer] != keys for answer in answers):
        raise CommandError(f"{name}: the store changed while it was read; try again")
    places = {unit: place for place, unit in enumerate(sorted({entry["unit"] for entry in entries}))}
    units, streams = len(places), about["layers"] * about["heads"]
    cells: dict[Cell, Heads] = {}
    signals: dict[tuple[Group, str], Series] = {}
    traffic: dict[str, NDArray[np.float64]] = {}
    for index, entry in enumerate(entries):
        place, requests = places[entry["unit"]], float(entry["requests"])
        cell = Cell(entry["adapter"], entry["route"], entry["band"], "decode", entry["language"], entry["template"])
        heads = cells.setdefault(cell, _no_heads(units, streams))
        heads.rows[place], heads.covariates[place] = requests, entry["length"]
        for feature, answer in enumerate(answers):
            heads.values[place, feature] = _values(answer[index]["values"], streams, name)
        group = Group(entry["adapter"], entry["route"], entry["language"])
        for signal, (mean, count) in entry["figures"].items():
            _add(signals.setdefault((group, signal), Series(np.full(units, np.nan), np.zeros(units))), place, mean, count)
        for figure, count in _counts(entry).items():
            traffic.setdefault(figure, np.zeros(units))[place] += count
    return Side(
        name, "requests", tuple(about["models"]), tuple(about["revisions"]), DRIFT_FEATURES, about["heads"], length,
        np.zeros(units, np.int64), int(sum(entry["requests"] for entry in entries)),
        min(entry["first_ns"] for entry in entries), max(entry["last_ns"] for entry in entries), cells, signals, traffic,
    )  # fmt: skip


def _counts(entry: dict[str, Any]) -> dict[str, float]:
    requests = float(entry["requests"])
    counts = {
        "requests": requests, "prompt_log2": requests * entry["length"],
        f"route:{entry['route']}": requests, f"band:{entry['band']}": requests,
    }  # fmt: skip
    if entry["language"]:
        counts[f"language:{entry['language']}"] = requests
    return counts | {f"template:{entry['route']}:{digest}": float(count) for digest, count in entry["templates"].items()}


def _add(series: Series, place: int, mean: float, count: float) -> None:
    total = series.requests[place] + count
    before = 0.0 if np.isnan(series.values[place]) else series.values[place]
    series.values[place] = before + (mean - before) * count / total
    series.requests[place] = total


def _no_heads(units: int, streams: int) -> Heads:
    features = len(DRIFT_FEATURES)
    values = np.full((units, features, streams), np.nan, np.float32)
    return Heads(values, np.zeros((units, features)), np.full((units, 1), np.nan))


def _values(encoded: str, streams: int, name: str) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(encoded), "<f4")
    if len(values) != streams:
        raise CommandError(f"{name}: a unit has {len(values)} heads, others {streams}; compare arms of one model")
    return values


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("unit", "adapter", "route", "band", "language", "template"))
