"""From the rows of a probe to one number for each head and request.

Each function takes the answers one by one and keeps only that, so that the rows of a batch can go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.calibrate.needle import matching_tokens, needle_mass
from headwatch.calibrate.repeats import induction_mass
from headwatch.model import LOCAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.calibrate.documents import Pair
    from headwatch.calibrate.engine import ProbeEngine
    from headwatch.calibrate.needle import Needle
    from headwatch.calibrate.prompts import Prompt
    from headwatch.calibrate.rows import Answer
    from headwatch.calibrate.statistics import Floats

    Counted = Callable[[str, int, int], None]
    """Told the probe, how many of its prompts are answered, and how many there are."""

ORDINARY_FROM = 4 * LOCAL_TOKENS
"""Rows from this position on are ordinary: an even spread would put a quarter or less on the local positions."""


@dataclass(frozen=True, slots=True)
class Side:
    """The requests of a document probe with right, or with wrong, documents.  Q questions."""

    lookback: Floats  # [Q, L, H] mean over generated rows; NaN where none defines it
    local_mass: Floats  # [Q, L, H] mean over ordinary rows of the prompt
    sink_mass: Floats  # [Q, L, H]
    prompt_tokens: Floats  # [Q]
    log_probability: Floats  # [Q]


@dataclass(frozen=True, slots=True)
class NeedleMasses:
    """What the needle probe gave.  P prompts."""

    mass: Floats  # [P, L, H] on the needle
    even_share: float
    """What a head would put on the needle if it spread its attention evenly: tokens of the needle over tokens seen."""
    answered: int
    """Prompts whose number came out whole."""


def measure_documents(engine: ProbeEngine, pairs: Sequence[Pair], counted: Counted, name: str) -> tuple[Side, Side]:
    """Return the requests of *pairs* with right and with wrong documents."""
    prompts = [prompt for pair in pairs for prompt in (pair.right, pair.wrong)]
    measured = [_document_values(prompt, answer) for prompt, answer in _ask(engine, prompts, counted, name)]
    return _side(measured[0::2]), _side(measured[1::2])


def measure_needles(engine: ProbeEngine, needles: Sequence[Needle], counted: Counted) -> NeedleMasses:
    """Return what each of *needles* drew."""
    masses, shares, answered = [], [], 0
    prompts = [needle.prompt for needle in needles]
    for needle, (prompt, answer) in zip(needles, _ask(engine, prompts, counted, "needle"), strict=True):
        masses.append(needle_mass(needle, answer))
        spans = [span for span in answer.rows[-1].context.spans if span.document >= 0]
        shares.append(sum(span.end - span.start for span in spans) / len(prompt.token_ids))
        answered += matching_tokens(needle.number_ids, answer.generated_ids) == len(needle.number_ids)
    return NeedleMasses(np.stack(masses), float(np.mean(shares)), answered)


def measure_repeats(engine: ProbeEngine, prompts: Sequence[Prompt], counted: Counted) -> Floats:
    """Return the induction mass [P, L, H] of each of *prompts*."""
    return np.stack([induction_mass(answer) for _, answer in _ask(engine, prompts, counted, "repeats")])


def _ask(
    engine: ProbeEngine, prompts: Sequence[Prompt], counted: Counted, name: str
) -> Iterator[tuple[Prompt, Answer]]:
    for number, (prompt, answer) in enumerate(zip(prompts, engine.ask(prompts), strict=True), 1):
        counted(name, number, len(prompts))
        yield prompt, answer


def _document_values(prompt: Prompt, answer: Answer) -> Side:
    length = len(prompt.token_ids)
    generated = [row for row in answer.rows if row.position >= length]
    ordinary = [row for row in answer.rows if ORDINARY_FROM <= row.position < length]
    return Side(
        lookback=_mean(row.feature("lookback") for row in generated),
        local_mass=_mean(row.feature("local_mass") for row in ordinary),
        sink_mass=_mean(row.feature("sink_mass") for row in ordinary),
        prompt_tokens=np.array(float(length)),
        log_probability=np.array(answer.log_probability),
    )


def _side(requests: Sequence[Side]) -> Side:
    return Side(
        lookback=np.stack([item.lookback for item in requests]),
        local_mass=np.stack([item.local_mass for item in requests]),
        sink_mass=np.stack([item.sink_mass for item in requests]),
        prompt_tokens=np.stack([item.prompt_tokens for item in requests]),
        log_probability=np.stack([item.log_probability for item in requests]),
    )


def _mean(rows: Iterable[NDArray[np.float32]]) -> Floats:
    """Return the mean over *rows* of what they define; NaN where none does."""
    stacked = np.stack(list(rows)).astype(np.float64)
    defined = np.isfinite(stacked)
    count = defined.sum(axis=0)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
