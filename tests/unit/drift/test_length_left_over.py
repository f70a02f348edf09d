"""What length does inside a stratum is taken out: from rows through windows to what is left of the heads.

On the real model the same is measured by ``python -m benchmarks.signals``; here heads follow the length by a known law.
"""

from __future__ import annotations

from math import log2

import msgspec
import numpy as np

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.drift.regression import fit
from headwatch.model import WINDOW_FEATURES, Span
from headwatch.wire.columns import view

from ..frames import HEADS, LAYERS, SECOND, context, summary

SHORT, LONG = 280, 500
"""Tokens, in one band."""
REQUESTS = 8
ENTROPY = WINDOW_FEATURES.index("entropy")


def window(random: np.random.Generator, made: Aggregator, number: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Send one window of requests, *share* of them long; return the heads' mean entropy [1, K] and the covariates [1]."""
    for place in range(REQUESTS):
        tokens = LONG if random.random() < share else SHORT
        item = msgspec.structs.replace(
            context(f"r-{number}-{place}"), prompt_tokens=tokens, spans=[Span("user", 0, tokens)], documents=[]
        )
        entropy = 0.5 + 0.05 * (log2(tokens) - 8.0) + 0.002 * random.standard_normal()
        rows = [(tokens, {"entropy": entropy, "sink_mass": 0.1}, [0.9, 0.1])]
        batch = summary(rows, request=item, finished=[item.engine_id], time_ns=number * 60 * SECOND)
        made.add(batch, view(batch))
    (closed,), _ = made.collect(number * 60 * SECOND)
    assert {stratum.context_band for stratum in closed.strata} == {"256-512"}
    assert closed.log_length is not None
    values = (closed.total[0, ENTROPY] / closed.weight[0, ENTROPY]).reshape(1, LAYERS * HEADS)
    return values, closed.log_length


def test_another_mix_of_lengths_in_one_band_is_no_effect_once_length_is_regressed_out() -> None:
    random = np.random.default_rng(5)
    made = Aggregator(WindowConfig(requests=REQUESTS))
    baseline = [window(random, made, number, random.uniform(0.2, 0.8)) for number in range(120)]
    later = [window(random, made, 120 + number, 0.8) for number in range(40)]
    series, causes = (np.stack([item[part] for item in baseline]) for part in (0, 1))
    now, lengths = (np.stack([item[part] for item in later]) for part in (0, 1))
    centre = series.mean(axis=0)
    regression = fit(series - centre, causes)
    left = series - centre - regression.expected(causes)

    before = (now - centre).mean(axis=0) / series.std(axis=0)
    after = (now - centre - regression.expected(lengths)).mean(axis=0) / left.std(axis=0)
    assert (before > 1.0).all(), "longer prompts move every head by more than a standard deviation of a window"
    assert (np.abs(after) < 0.5).all()
