"""What a choice of heads is worth on questions that had no part in it.

Every figure is an AUROC over requests, right documents against wrong ones, with a bootstrap over questions.  Two controls
say what else could have told them apart: the prompt's length, which is the same in both by construction, and the
probability that the model itself gave to its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.head_map import Evaluation
from headwatch.calibrate.classify import score
from headwatch.calibrate.statistics import auroc_estimate

if TYPE_CHECKING:
    from headwatch.calibrate.measure import Side
    from headwatch.calibrate.select import Choice
    from headwatch.calibrate.statistics import Floats


def evaluate(right: Side, wrong: Side, choice: Choice, seed: tuple[int, ...]) -> Evaluation:
    """Return how well the heads of *choice*, all heads and the controls tell *right* from *wrong* requests."""
    looked_at = {
        "all_heads": (_average(right.lookback), _average(wrong.lookback)),
        "prompt_tokens": (right.prompt_tokens, wrong.prompt_tokens),
        "answer_probability": (right.log_probability, wrong.log_probability),
    }
    if choice.heads:
        layers, heads = (list(part) for part in zip(*choice.heads, strict=True))
        looked_at["retrieval_heads"] = (
            _average(right.lookback[:, layers, heads]), _average(wrong.lookback[:, layers, heads])
        )  # fmt: skip
    return Evaluation(
        questions=len(right.lookback),
        # One generator each, from the same seed: every figure is drawn over the same questions.
        auroc={
            name: score(auroc_estimate(one, other, np.random.default_rng(seed)))
            for name, (one, other) in looked_at.items()
        },
    )


def _average(values: Floats) -> Floats:
    """Return the mean [Q] over all but the first axis of *values* [Q, ...], of what is defined."""
    flat = values.reshape(len(values), -1)
    flat = flat[:, np.isfinite(flat).any(axis=0)]
    return np.nanmean(flat, axis=1) if flat.size else np.full(len(values), np.nan)
