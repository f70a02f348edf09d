"""Repeated random tokens: the probe for induction heads (Olsson et al., arXiv 2209.11895).

A sequence of random tokens stands in the prompt twice.  In its second copy nothing but the first copy tells what comes
next, and an induction head looks at the token after the earlier occurrence of the current one.  Every token of the first
copy is a span of its own, so that the mass on exactly that token can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.calibrate.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.calibrate.rows import Answer


LENGTH = 64
"""Tokens in one copy; it stays below ``capture.max_documents``."""
SEQUENCES = 24


def make_repeats(ordinary_ids: Sequence[int], random: np.random.Generator, count: int = SEQUENCES) -> tuple[Prompt, ...]:
    """Return *count* prompts of :data:`LENGTH` different random tokens twice, each token of the first copy a document."""
    prompts = []
    for _ in range(count):
        copy = [ordinary_ids[index] for index in random.choice(len(ordinary_ids), LENGTH, replace=False)]
        documents = tuple({"id": f"token-{place}", "start": place, "end": place + 1} for place in range(LENGTH))
        prompts.append(Prompt((*copy, *copy), 1, documents))
    return tuple(prompts)


def induction_mass(answer: Answer) -> NDArray[np.float64]:
    """Return the mean mass [L, H] on the token after the earlier occurrence, over the sampled rows of the second copy."""
    masses = [
        row.span_mass[target] for row in answer.rows if (target := row.position - LENGTH + 1) in range(1, LENGTH)
    ]
    mean: NDArray[np.float64] = np.mean(masses, axis=0, dtype=np.float64)
    return mean
