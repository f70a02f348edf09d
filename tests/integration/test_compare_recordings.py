"""Comparisons of what the real model did: equal halves are the same, and a changed run is called what it is.

``python -m benchmarks.compare`` does the same for every recorded run and a hundred halvings.
"""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.bench.triage.recording import BASELINE, SUFFIX, name_of, packaged, read
from headwatch.compare.gathering import side_of
from headwatch.compare.run import Settings, compared
from headwatch.incident.triage import triage

FOLDER = packaged()
QUICK = Settings(labellings=599)

@pytest.fixture(scope="module")
def baseline():
    return read(FOLDER / f"{BASELINE}{SUFFIX}").windows


def called(first, second):
    """Return the class of what differs between two stretches of windows, ``same`` where nothing does."""
    sides = [side_of(name, windows, [len(windows)], 1) for name, windows in (("A", first), ("B", second))]
    verdict = compared(sides[0], sides[1], QUICK, triage).verdict
    return verdict.drift_class if verdict else "same"


def test_halves_of_healthy_windows_are_the_same(baseline):
    """At level 0.02 three of twelve would be one in 600."""
    random, halves = np.random.default_rng(7), []
    for _ in range(12):
        dealt = random.permutation(len(baseline)).tolist()
        parts = sorted(dealt[: len(dealt) // 2]), sorted(dealt[len(dealt) // 2 :])
        halves.append(called(*([baseline[number] for number in part] for part in parts)))
    assert halves.count("same") >= 10


@pytest.mark.parametrize(
    ("scenario", "right"),
    [
        ("wrong_documents", {"retrieval"}), ("absent_documents", {"retrieval"}), ("altered_weight", {"model"}),
        ("system_prompt", {"model"}), ("restart", {"same", "traffic"}),
    ],
)  # fmt: skip
def test_a_run_is_called_what_it_is(baseline, scenario, right):
    """The third run has questions on which nothing was tuned."""
    assert called(baseline, read(FOLDER / name_of(scenario, 3)).windows) in right
