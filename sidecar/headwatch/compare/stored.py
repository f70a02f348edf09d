"""A side from the store: requests of an arm, a revision, a model or an adapter, some consecutive ones to a unit.

The store makes the units (``/api/v1/units``), so a million requests cost as much as a thousand.  Figures and heads are read
one after the other and must speak of the same requests: what ends after the first answer is left out.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwatch.compare.ranges import LAST_NS
from headwatch.compare.side import Cell, Group, Heads, Series, Side
from headwatch.errors import CommandError
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.compare.side import Unit
    from headwatch.records import Selection

MOST_BYTES = 8 * 1024 * 1024
"""Head values of one answer: of a large model fewer units are asked for."""
_FLOAT_BYTES = 4


class UnitReader(Protocol):
    """Who can be asked about requests."""

    def units(
        self, selection: Selection, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0,
        until_ns: int = LAST_NS,
    ) -> dict[str, Any]:  # fmt: skip
        """Return *selection* as units of *length* requests."""
        ...

    def signals(
        self, selection: Selection, length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = LAST_NS, first: int = 0
    ) -> dict[str, Any]:
        """Return the signals of retrieval of the same units from *first* on, and the ``next`` unit to ask for."""
        ...


class Stored:
    """The requests of a selection that ended between two times."""

    def __init__(
        self, name: str, selection: Selection, since_ns: int = 0, until_ns: int = LAST_NS, *, reader: UnitReader
    ) -> None:
        self._name = name
        self._selection = selection
        self._reader = reader
        self._since = since_ns
        first = reader.units(selection, length=1, limit=1, since_ns=since_ns, until_ns=until_ns)
        self._size = int(first["requests"])
        latest = max((int(unit["last_ns"]) for unit in first["units"]), default=0)
        self._until = min(until_ns, latest + 1)  # requests that end from now on change nothing

    @property
    def name(self) -> str:
        """Return what the user called it."""
        return self._name

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
            raise CommandError(f"{self.name} holds several models ({', '.join(about['models'])}); choose one, as in "
                               f"[model={about['models'][0]}]")  # fmt: skip
        streams = about["layers"] * about["heads"]
        fitting = MOST_BYTES / (len(about["units"]) * streams * _FLOAT_BYTES)
        if fitting < 1:
            most = max(int(most * fitting), 1)
            about = self._units("", length, most)
        answers = [self._units(feature, length, most)["units"] for feature in DRIFT_FEATURES]
        signals = self._signals(length, most)
        return _side(self.name, about, answers, signals, length, self._selection.adapter)

    def _units(self, feature: str, length: int, limit: int) -> dict[str, Any]:
        return self._reader.units(self._selection, feature, length, limit, self._since, self._until)

    def _signals(self, length: int, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        first: int | None = 0
        while first is not None and first < limit:
            answer = self._reader.signals(self._selection, length, limit, self._since, self._until, first)
            found += answer["signals"]
            first = answer["next"]
        return found


def _side(
    name: str, about: dict[str, Any], answers: Sequence[Sequence[dict[str, Any]]], of_units: Sequence[dict[str, Any]],
    length: int, adapter: str | None,
) -> Side:  # fmt: skip
    """Return the side; an *adapter* that was chosen is what is compared and not held equal."""
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
        held = entry["adapter"] if adapter is None else ""
        cell = Cell(held, entry["route"], entry["band"], "decode", entry["language"], entry["template"])
        heads = cells.setdefault(cell, _no_heads(units, streams))
        heads.rows[place], heads.covariates[place] = requests, entry["length"]
        for feature, answer in enumerate(answers):
            heads.values[place, feature] = _values(answer[index]["values"], streams, name)
        for figure, count in _counts(entry).items():
            traffic.setdefault(figure, np.zeros(units))[place] += count
    for entry in of_units:
        group = Group(entry["adapter"] if adapter is None else "", entry["route"], entry["language"])
        for signal, (mean, requests) in entry["values"].items():
            series = signals.setdefault((group, signal), Series(np.full(units, np.nan), np.zeros(units)))
            series.values[places[entry["unit"]]], series.requests[places[entry["unit"]]] = mean, requests
    return Side(
        name, "requests", tuple(about["models"]), tuple(about["revisions"]), DRIFT_FEATURES, about["heads"], length,
        np.zeros(units, np.int64), int(sum(entry["requests"] for entry in entries)),
        min(entry["first_ns"] for entry in entries), max(entry["last_ns"] for entry in entries), cells, signals, traffic,
        adapter=adapter,
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


def _no_heads(units: int, streams: int) -> Heads:
    features = len(DRIFT_FEATURES)
    values = np.full((units, features, streams), np.nan, np.float32)
    return Heads(values, np.zeros((units, features)), np.full((units, 1), np.nan))


def _values(encoded: str, streams: int, name: str) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(encoded), "<f4")
    if len(values) != streams:
        raise CommandError(f"{name}: a unit has {len(values)} heads, others {streams}; choose a range of one model")
    return values


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("unit", "adapter", "route", "band", "language", "template"))
