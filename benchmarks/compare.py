"""How often ``headwatch compare`` calls equal sides different, and whether it names what differs.

Run ``python -m benchmarks.compare [--recordings FOLDER] [--splits 100] [--nulls 400] [--json]``.

``splits``: the healthy windows of the baseline recording (real model, real server) are dealt to two sides at random, again and
again; nothing differs, so no difference should be found.  ``scenarios``: each recorded run, from its change on, is held against
the baseline.  ``nulls``: drawn streams in which nothing differs but which make it hard (:mod:`benchmarks.compare_nulls`), each
promised a false difference in 2 % of pairs.
The committed result is ``benchmarks/results/compare.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.compare_nulls import NULLS, drawn
from headwatch.bench.machine import describe
from headwatch.bench.triage.recording import BASELINE, SUFFIX, names, packaged, read
from headwatch.bench.triage.scenarios import SCENARIOS
from headwatch.compare.gathering import side_of
from headwatch.compare.run import Settings, compared
from headwatch.errors import CommandError
from headwatch.incident.triage import triage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.compare.run import Comparison
    from headwatch.observed import ObservedWindow

NULL_LABELLINGS = 599
"""Of drawn pairs: the level does not depend on how many there are, the time does."""
INNOCENT = "innocent"
HARMLESS = {"same", "traffic"}
"""What an innocent scenario may be called: nothing that would stop a release."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One recorded run held against the baseline."""

    scenario: str
    run: int
    split: str
    expected: str
    verdict: str
    cause: str
    right: bool
    p_value: float
    windows: int


def hold(first: Sequence[ObservedWindow], second: Sequence[ObservedWindow], settings: Settings) -> Comparison:
    """Return the comparison of two stretches of windows."""
    sides = [side_of(name, windows, [len(windows)], 1) for name, windows in (("A", first), ("B", second))]
    return compared(sides[0], sides[1], settings, triage)


def splits(windows: Sequence[ObservedWindow], count: int, settings: Settings) -> dict[str, Any]:
    """Return how many of *count* random halvings of *windows* show no difference, and what the others were called."""
    called: dict[str, int] = {}
    p_values = []
    for number in range(count):
        dealt = np.random.default_rng((2026, number)).permutation(len(windows))
        halves = [sorted(dealt[part].tolist()) for part in (slice(0, len(windows) // 2), slice(len(windows) // 2, None))]
        first, second = ([windows[place] for place in half] for half in halves)
        found = hold(first, second, settings)
        name = found.verdict.drift_class if found.verdict else "same"
        called[name] = called.get(name, 0) + 1
        p_values.append(round(found.p_value, 4))
    return {"splits": count, "windows": len(windows), "same": called.get("same", 0), "called": called, "p_values": p_values}


def judged(folder: Path, settings: Settings) -> list[Judged]:
    """Return what each recorded run of *folder* is called."""
    baseline = read(folder / f"{BASELINE}{SUFFIX}").windows
    expected = {scenario.name: scenario for scenario in SCENARIOS}
    found = []
    for name in names(folder):
        recording = read(folder / name)
        scenario = expected[str(recording.meta["scenario"])]
        if scenario.informative:
            continue
        comparison = hold(baseline, recording.windows, settings)
        verdict = comparison.verdict.drift_class if comparison.verdict else "same"
        right = verdict in HARMLESS if scenario.expected == INNOCENT else verdict == scenario.expected
        found.append(Judged(
            scenario.name, int(recording.meta["run"]), str(recording.meta["split"]), scenario.expected, verdict,
            comparison.verdict.cause if comparison.verdict else "", right, round(comparison.p_value, 4), len(recording.windows),
        ))  # fmt: skip
    return found


def nulls(count: int, settings: Settings) -> list[dict[str, Any]]:
    """Return how often each kind of drawn equal pair was called different."""
    found = []
    for name, null in NULLS.items():
        p_values = [compared(*drawn(null, seed), settings, triage).p_value for seed in range(count)]
        rate = float(np.mean([p_value <= settings.alpha for p_value in p_values]))
        found.append({"null": name, "pairs": count, "false_differences": rate, "promised": settings.alpha,
                      "standard_error": round(float(np.sqrt(settings.alpha * (1 - settings.alpha) / count)), 4)})  # fmt: skip
        _say(f"{name}: {rate:.3f}")
    return found


def report(folder: Path, split_count: int, null_count: int) -> dict[str, Any]:
    """Return everything, with the bars."""
    started = time.monotonic()
    settings = Settings()
    made: dict[str, Any] = {"machine": _plain(describe()), "alpha": settings.alpha}
    bars: dict[str, float] = {}
    if split_count:
        made["splits"] = splits(read(folder / f"{BASELINE}{SUFFIX}").windows, split_count, settings)
        runs = judged(folder, settings)
        made["scenarios"] = [_plain(run) for run in runs]
        bars["equal_splits_same_share"] = made["splits"]["same"] / split_count
        bars["scenarios_right_share"] = float(np.mean([run.right for run in runs]))
        reported = [run.right for run in runs if run.split != "development"]
        if reported:
            bars["scenarios_right_share_held_out"] = float(np.mean(reported))
    if null_count:
        made["nulls"] = nulls(null_count, Settings(labellings=NULL_LABELLINGS))
        bars["worst_false_difference_rate"] = max(null["false_differences"] for null in made["nulls"])
    return {"bars": bars, **made, "seconds": round(time.monotonic() - started, 1)}


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recordings", type=Path, default=packaged(), metavar="FOLDER")
    parser.add_argument("--splits", type=int, default=100, help="0: nothing of recordings")
    parser.add_argument("--nulls", type=int, default=400, help="drawn pairs of each kind; 0: none")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        made = report(given.recordings, given.splits, given.nulls)
    except CommandError as error:
        _say(str(error))
        return 1
    lines = [] if given.json else [_line(run) for run in made.get("scenarios", [])]
    sys.stdout.write("\n".join([*lines, json.dumps(made if given.json else made["bars"], indent=2), ""]))
    return 0


def _line(run: dict[str, Any]) -> str:
    found = f"{run['verdict']} {run['cause']}".rstrip()
    return (f"{'ok   ' if run['right'] else 'WRONG'} {run['scenario']}-{run['run']} ({run['split']}): {found} for "
            f"{run['expected']}, p = {run['p_value']}")  # fmt: skip


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
