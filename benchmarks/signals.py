"""What faults of retrieval and innocent changes do to each signal, and how much of length a stratum leaves in the heads.

Run ``python -m benchmarks.signals [--requests N] [--json]`` (a quarter of an hour): the packaged model behind the real server,
with the plugin; the requests of ``headwatch bench triage`` (development questions), so many for each scenario; a receiver and
the aggregator in this process.  An effect is the difference of means in standard deviations of one healthy request; a window of
n requests sees it √n times as large.  ``python -m benchmarks.signals --table benchmarks/results/signals.json`` writes the table
of docs/signals.md.

Length: the same questions with two or three documents, 350 and 480 tokens in one band, mixed in other proportions.  Windows of
the baseline and those that are held against it are drawn from the same requests, so that nothing differs but the mix.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.aggregate.head_map import load_head_map
from headwatch.aggregate.windows import Aggregator
from headwatch.bench.machine import describe
from headwatch.bench.triage import alterations as change
from headwatch.bench.triage.asking import Shown, healthy
from headwatch.bench.triage.knowledge import company, elsewhere, german, short_notes
from headwatch.bench.triage.sending import send
from headwatch.config import WindowConfig, WireConfig
from headwatch.demo.model import prepare_model
from headwatch.demo.processes import Server
from headwatch.demo.servers import SERVED_MODEL, Addresses, config_text, vllm_command, vllm_environ
from headwatch.drift.regression import fit
from headwatch.drift.signals import DocumentBook, definition_of
from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.scopes import values_of
from headwatch.drift.signals.sources import SourceBook
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.bench.triage.asking import Asked
    from headwatch.bench.triage.knowledge import Bundle
    from headwatch.model import SummaryBatch
    from headwatch.records import RequestRecord, WindowBatch
    from headwatch.wire.columns import Columns

    _Stream = tuple[NDArray[np.float64], NDArray[np.float64]]
    """Means [F, K] of the heads of a request or window, and its covariates [1]."""

HEAD_MAP = Path(__file__).parents[1] / "sidecar" / "headwatch" / "demo" / "head_map.json"
HEALTHY = ("healthy", "healthy_again")
SCENARIOS: dict[str, tuple[change.Alteration | None, Callable[[], tuple[Bundle, ...]]]] = {
    **dict.fromkeys(HEALTHY, (None, company)),
    "wrong": (change.wrong_documents, company), "absent": (change.absent_documents, company),
    "stale": (change.stale_documents, company), "shuffled": (change.shuffled_documents, company),
    "truncated": (change.truncated_documents, company), "source_broken": (change.source_broken, company),
    "rank_reversed": (change.rank_reversed, company), "injected": (change.injected, company),
    "longer": (change.longer_questions, company), "shorter": (None, short_notes), "other_topics": (None, elsewhere),
    "german": (None, german),
}  # fmt: skip
CONCURRENCY = 4
_WINDOW_REQUESTS, _BASELINE_WINDOWS, _WINDOWS = 16, 400, 100
_BOLD, _NOTHING = 1.0, 0.05
_NEVER_MOVES = 1e-9
"""The deviation of a signal that is the same in every healthy request; its effects are plain differences."""
_MIXES = (0.2, 0.8)
"""Shares of the longer prompts between which the baseline moves, and at which it is held."""


class Listener:
    """A receiver with an aggregator of its own for each set of requests."""

    def __init__(self, endpoint: str) -> None:
        self._mask = {"": load_head_map(str(HEAD_MAP)).mask()}
        self._aggregator = Aggregator(WindowConfig(requests=1), self._mask)
        self._receiver = Receiver(WireConfig(endpoint=endpoint), WorkerRegistry(None), self._take)
        self._receiver.start()

    def _take(self, batch: SummaryBatch, columns: Columns) -> None:
        self._aggregator.add(batch, columns)

    def heard(self, requests: int) -> tuple[list[WindowBatch], list[RequestRecord]]:
        """Return the windows, of one request each, and the records of the last *requests*."""
        windows: list[WindowBatch] = []
        records: list[RequestRecord] = []
        deadline = time.monotonic() + 20.0
        while len(records) < requests and time.monotonic() < deadline:
            time.sleep(0.2)
            more = self._aggregator.collect(0)
            windows += more[0]
            records += more[1]
        return windows, records

    def stop(self) -> None:
        """Free the port."""
        self._receiver.stop()


def measure(requests: int, say: Callable[[str], None]) -> dict[str, object]:
    """Return what every scenario does to every signal, and what length does to heads."""
    addresses = Addresses.free()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "headwatch.toml"
        config.write_text(config_text(addresses, Path(folder) / "store", None))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATCH_")}
        environ["HEADWATCH_CONFIG"] = str(config)
        listener = Listener(addresses.wire)
        command = vllm_command(prepare_model(), addresses)
        with Server("vLLM", command, Path(folder) / "vllm.log", vllm_environ(environ)) as server:
            server.wait_until_healthy(f"{addresses.vllm}/health", 600.0)
            heard: dict[str, list[RequestRecord]] = {}
            for seed, name in enumerate(SCENARIOS):
                send(addresses.vllm, SERVED_MODEL, _asked(name, seed, requests), CONCURRENCY)
                heard[name] = listener.heard(requests)[1]
                say(f"{name}: {len(heard[name])} requests")
            pools = {}
            for documents in (2, 3):
                send(addresses.vllm, SERVED_MODEL, _with_documents(documents, 2 * requests), 1)
                pools[documents] = listener.heard(2 * requests)[0]
                say(f"{documents} documents: {len(pools[documents])} requests")
        listener.stop()
    machine = msgspec.to_builtins(describe())
    return {"machine": machine, "requests": requests, "signals": _effects(heard), "length": _length(pools)}


def _asked(name: str, seed: int, count: int) -> list[Asked]:
    alteration, bundles = SCENARIOS[name]
    random = np.random.default_rng(seed + 1)
    stream = healthy(random, "development", bundles())
    asked = [next(stream) for _ in range(count)]
    return asked if alteration is None else [alteration(item, random, "development") for item in asked]


def _with_documents(documents: int, count: int) -> list[Asked]:
    """Return the same questions whatever the number of *documents*."""
    stream = healthy(np.random.default_rng(99), "development")
    asked = [next(stream) for _ in range(count)]
    return [replace(item, documents=_first(item, documents)) for item in asked]


def _first(item: Asked, documents: int) -> tuple[Shown, ...]:
    return item.documents[:documents]


def _effects(heard: dict[str, list[RequestRecord]]) -> dict[str, dict[str, float]]:
    """Return by signal its mean and deviation when all is well, and the effect of each scenario."""
    book = DocumentBook(sources=SourceBook(needed=1))
    values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in heard}
    for name, records in heard.items():
        for request in map(ReadRequest, records):
            book.learn(request)
            for signal, value in values_of(request, book).items():
                values[name][signal].append(value)
    found: dict[str, dict[str, float]] = {}
    for signal in dict.fromkeys(signal for by_signal in values.values() for signal in by_signal):
        usual = np.array([value for name in HEALTHY for value in values[name].get(signal, [])])
        if not len(usual):
            continue
        row = {"mean": float(usual.mean()), "deviation": float(usual.std())}
        for name in heard:
            if values[name].get(signal):
                moved = float(np.mean(values[name][signal])) - row["mean"]
                row[name] = moved / row["deviation"] if row["deviation"] > _NEVER_MOVES else moved
        found[signal] = {key: round(value, 4) for key, value in row.items()}
    return found


def _length(pools: dict[int, list[WindowBatch]]) -> dict[str, object]:
    """Return how many streams a change of the mix of lengths moves by more than one standard deviation of a window."""
    random = np.random.default_rng(0)
    short, long = ([_stream(window) for window in pools[documents]] for documents in (2, 3))
    baseline = [_drawn(random, short, long, random.uniform(*_MIXES)) for _ in range(_BASELINE_WINDOWS)]
    series, causes = (np.stack([window[part] for window in baseline]) for part in (0, 1))
    centre = series.mean(axis=0)
    regression = fit(series - centre, causes)
    left = series - centre - regression.expected(causes)
    tokens = [round(float(np.mean([2.0 ** item[1][0] for item in pool]))) for pool in (short, long)]
    result: dict[str, object] = {"streams": int(centre.size), "tokens": tokens}
    for mix in _MIXES:
        windows = [_drawn(random, short, long, mix) for _ in range(_WINDOWS)]
        values, lengths = (np.stack([window[part] for window in windows]) for part in (0, 1))
        before = (values - centre).mean(axis=0) / series.std(axis=0)
        after = (values - centre - regression.expected(lengths)).mean(axis=0) / left.std(axis=0)
        result[f"longer_{mix:.0%}"] = {
            "moved_before": int((np.abs(before) > 1).sum()), "moved_after": int((np.abs(after) > 1).sum()),
            "median_effect_before": round(float(np.median(np.abs(before))), 3),
            "median_effect_after": round(float(np.median(np.abs(after))), 3),
        }  # fmt: skip
    return result


def _stream(window: WindowBatch) -> _Stream:
    """Return the means [F, K] of the decode rows of one request, and its mean log2 of visible tokens [1]."""
    place = next(number for number, stratum in enumerate(window.strata) if stratum.phase == "decode")
    chosen = [window.features.index(name) for name in DRIFT_FEATURES]
    with np.errstate(invalid="ignore"):
        values = (window.total[place, chosen] / window.weight[place, chosen]).reshape(len(chosen), -1)
    assert window.log_length is not None
    return np.nan_to_num(values), window.log_length[place : place + 1]


def _drawn(
    random: np.random.Generator, short: Sequence[_Stream], long: Sequence[_Stream], share: float
) -> _Stream:
    """Return a window of requests, *share* of them long ones."""
    count = int(random.binomial(_WINDOW_REQUESTS, share))
    chosen = [long[place] for place in random.integers(len(long), size=count)]
    chosen += [short[place] for place in random.integers(len(short), size=_WINDOW_REQUESTS - count)]
    return np.mean([item[0] for item in chosen], axis=0), np.mean([item[1] for item in chosen], axis=0)


def table(result: dict[str, object]) -> Iterator[str]:
    """Yield the lines of the Markdown table: signals that move, by scenario; what moves by a whole deviation is bold."""
    signals = result["signals"]
    assert isinstance(signals, dict)
    columns = [name for name in SCENARIOS if name not in HEALTHY]
    yield "| signal | well | " + " | ".join(name.replace("_", " ") for name in columns) + " |\n"
    yield "|---|---|" + "---|" * len(columns) + "\n"
    for name, row in signals.items():
        if definition_of(name).of_window:
            continue
        plain = row["deviation"] <= _NEVER_MOVES
        cells = [_cell(row.get(column), row, plain=plain) for column in columns]
        if any(cell not in {"", "0"} for cell in cells):
            well = f"{row['mean']:.3g}" if plain else f"{row['mean']:.3g} ± {row['deviation']:.2g}"
            yield f"| `{name}` | {well} | " + " | ".join(cells) + " |\n"
    if isinstance(result["length"], dict):
        yield from _length_lines(result["length"])


def _length_lines(length: dict[str, Any]) -> Iterator[str]:
    """Yield a table of what a change of the mix of lengths does to heads in one band, before and after the regression."""
    short, long = length["tokens"]
    yield f"\n| {length['streams']} streams, prompts of {short} and {long} tokens | moved by 1 sd of a window "
    yield "| after regression | median effect, sd | after regression |\n|---|---|---|---|---|\n"
    for mix in _MIXES:
        row = length[f"longer_{mix:.0%}"]
        yield (f"| {mix:.0%} long ones | {row['moved_before']} | {row['moved_after']} | {row['median_effect_before']:.2f} "
               f"| {row['median_effect_after']:.2f} |\n")


def _cell(effect: float | None, row: dict[str, float], *, plain: bool) -> str:
    if effect is None:
        return ""
    if plain:
        return f"**{row['mean'] + effect:.2g}**" if abs(effect) >= _NOTHING else "0"
    if abs(effect) < _NOTHING:
        return "0"
    shown = f"{effect:+.1f}" if abs(effect) < 100 else f"{effect:+.0e}"  # noqa: PLR2004 - more digits say nothing
    return f"**{shown}**" if abs(effect) >= _BOLD else shown


def _lines(result: dict[str, object]) -> Iterator[str]:
    signals = result["signals"]
    assert isinstance(signals, dict)
    for name, row in signals.items():
        yield f"{name:28} " + " ".join(f"{key}={value:.2f}" for key, value in row.items())
    yield json.dumps(result["length"])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", metavar="RESULT", help="write the table of a result instead of measuring one")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.writelines(table(json.loads(Path(arguments.table).read_text(encoding="utf-8"))))
        return 0
    result = measure(arguments.requests, _say)
    sys.stdout.write(json.dumps(result, indent=1) + "\n" if arguments.json else "".join(f"{line}\n" for line in _lines(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
