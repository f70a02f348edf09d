"""What an engine's workers sent, put together: the rows of one run by what the engine had read up to each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from headwatch.model import FEATURES
from headwatch.wire import codec, columns

HERE = Path(__file__).parent
TEXT_FREE = [name for name in FEATURES if name != "lookback"]
"""Features that depend on the tokens alone, not on where the prompt ends."""


@dataclass(frozen=True)
class Row:
    """One row of one request, its heads and layers put together from all frames that carry parts of it."""

    context: object
    position: int
    adapter: str
    features: np.ndarray  # [L, H, 6]
    span_mass: np.ndarray  # [spans + 1, L, H]


class Run:
    """One engine's run, read from the folder in which mode_engine.py left it."""

    def __init__(self, folder: Path) -> None:
        self.frames = [codec.decode(frame) for frame in msgspec.msgpack.decode((folder / "frames").read_bytes())]
        self.statuses = [codec.decode(frame) for frame in msgspec.msgpack.decode((folder / "statuses").read_bytes())]
        self.outputs = json.loads((folder / "outputs.json").read_text())

    def shown(self, *scenarios: str) -> list[dict]:
        """Return the requests of *scenarios*, all of them where none is named."""
        found = []
        for name, result in self.outputs.items():
            if not scenarios or name in scenarios:
                found += result if isinstance(result, list) else result.get("outputs", [])
        return found

    @cached_property
    def rows(self) -> dict[tuple[str, int], Row]:
        """Return every row by (engine id, position).  A part that comes twice fails."""
        rows: dict[tuple[str, int], Row] = {}
        for frame in self.frames:
            view, heads = columns.view(frame), slice(frame.head_offset, frame.head_offset + frame.heads)
            for number, (request, position) in enumerate(zip(view.request.tolist(), view.position.tolist(), strict=True)):
                context = frame.requests[request]
                shape = (frame.worker.layers, frame.worker.heads)
                row = rows.setdefault((context.engine_id, position), Row(
                    context, position, context.adapter, np.full((*shape, len(FEATURES)), np.nan, np.float32),
                    np.full((len(context.spans) + 1, *shape), np.nan, np.float32),
                ))  # fmt: skip
                layers = np.array(frame.layers)
                assert np.isnan(row.span_mass[:, layers, heads]).all(), f"{context.engine_id} {position} was sent twice"
                row.features[layers, heads] = view.features[number]
                row.span_mass[:, layers, heads] = view.span_mass[number]
        return rows

    def sequence(self, row: Row) -> tuple[str, list[int]] | None:
        """Return (scenario, tokens) of the request that *row* belongs to; None where it was not shown.

        With n > 1 the engine numbers the samples in front of the id: ``2_9-1f…``.
        """
        place = int(row.context.engine_id.partition("_")[0]) if "_" in row.context.engine_id else 0
        return self._sequences.get((row.context.request_id, place))

    @cached_property
    def _sequences(self) -> dict[tuple[str, int], tuple[str, list[int]]]:
        found = {}
        for scenario in self.outputs:
            for item in self.shown(scenario):
                for place, tokens in enumerate(item["tokens"]):
                    found[item["id"], place] = (scenario, item["prompt"] + tokens)
        return found

    def by_tokens(self, *scenarios: str) -> dict[tuple[str, tuple[int, ...]], list[Row]]:
        """Return the rows of *scenarios* by (adapter, tokens up to the row), which is all that attention depends on."""
        found: dict[tuple[str, tuple[int, ...]], list[Row]] = {}
        for row in self.rows.values():
            known = self.sequence(row)
            if known is not None and known[0] in scenarios and row.position < len(known[1]):
                found.setdefault((row.adapter, tuple(known[1][: row.position + 1])), []).append(row)
        return found


def run_engine(folder: Path, model: Path, **spec: object) -> Run:
    """Run mode_engine.py in a process of its own, and return what came of it."""
    file = folder / "spec.json"
    file.write_text(json.dumps({"model": str(model), **spec}))
    done = subprocess.run(
        [sys.executable, str(HERE / "mode_engine.py"), str(file), str(folder)],
        capture_output=True, text=True, timeout=400, check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Run(folder)


def largest_difference(rows: list[Row], reference: Row) -> float:
    """Return the largest difference in any feature that depends on the tokens alone; every head must be there."""
    chosen = [FEATURES.index(name) for name in TEXT_FREE]
    expected = reference.features[..., chosen]
    worst = 0.0
    for row in rows:
        actual = row.features[..., chosen]
        assert np.array_equal(np.isnan(actual), np.isnan(expected)), "a head is missing, or defined in one run only"
        worst = max(worst, float(np.nanmax(np.abs(actual - expected), initial=0.0)))
    return worst
