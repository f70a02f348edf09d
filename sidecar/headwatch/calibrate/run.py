"""``headwatch calibrate heads`` from end to end: ask, score, choose, judge, write.

The seed decides every random choice, and the file carries neither a time nor a path: the same model, seed and machine
give the same bytes.  On two CPU cores a 135M model takes about ten minutes, with ``--quick`` about four; nearly all of it
is prefill.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch import __version__
from headwatch.aggregate.head_map import HeadMap, encode_head_map
from headwatch.calibrate.classify import mapped_heads
from headwatch.calibrate.corpus import load_split
from headwatch.calibrate.documents import make_pairs
from headwatch.calibrate.engine import probe_engine
from headwatch.calibrate.evaluate import evaluate
from headwatch.calibrate.measure import measure_documents, measure_needles, measure_repeats
from headwatch.calibrate.needle import NAMES, make_needles
from headwatch.calibrate.prompts import ModelWriter
from headwatch.calibrate.repeats import SEQUENCES, make_repeats
from headwatch.calibrate.report import CalibrationReport, summarise
from headwatch.calibrate.select import choose_heads
from headwatch.calibrate.statistics import auroc_estimate, mean_estimate
from headwatch.calibrate.weights import weights_sha256
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.aggregate.head_map import Probe
    from headwatch.calibrate.engine import ProbeEngine, Progress
    from headwatch.calibrate.measure import NeedleMasses, Side
    from headwatch.calibrate.statistics import Estimate, Floats
    from headwatch.model import StatusFrame

_SHOW_EVERY = 16


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is asked."""

    question_stride: int
    """Every how many questions of a split one is asked."""
    needle_names: int
    sequences: int


FULL = Effort(question_stride=1, needle_names=len(NAMES), sequences=SEQUENCES)
QUICK = Effort(question_stride=3, needle_names=2, sequences=8)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is calibrated, and how."""

    model: Path
    name: str
    """The name under which the model is served."""
    dtype: str = "auto"
    seed: int = 0
    effort: Effort = FULL


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that the probes gave."""

    calibration: tuple[Side, Side]
    """With right and with wrong documents."""
    held_out: tuple[Side, Side]
    needles: NeedleMasses
    induction: Floats  # [sequences, L, H]
    status: StatusFrame


def calibrate_heads(settings: Settings, out: Path, progress: Progress = lambda _: None) -> CalibrationReport:
    """Probe a model, write its head map to the file *out*, and return what came of it.

    Raises:
        CommandError: The model or the engine cannot be had, rows of a probe are missing, or *out* cannot be written.
    """
    started = time.monotonic()
    progress("hashing the weights")
    model_sha256 = weights_sha256(settings.model)
    with probe_engine(settings.model, settings.dtype, progress) as engine:
        measured = measure(engine, settings, progress)
    head_map = head_map_of(measured, settings, model_sha256)
    try:
        out.write_bytes(encode_head_map(head_map))
    except OSError as error:
        raise CommandError(f"cannot write the head map {out}: {error.strerror}") from error
    answered = measured.needles.answered / len(measured.needles.mass)
    return summarise(head_map, str(out), answered, measured.status.refused_layers, round(time.monotonic() - started, 1))


def measure(engine: ProbeEngine, settings: Settings, progress: Progress) -> Measured:
    """Return what all probes of *settings* give on *engine*."""
    writer, effort = ModelWriter(engine.tokenizer), settings.effort
    documents, unseen = load_split("calibration"), load_split("held_out")

    def random(probe: int) -> np.random.Generator:  # one for each probe, so that none depends on another's size
        return np.random.default_rng((settings.seed, probe))

    def counted(probe: str, number: int, total: int) -> None:
        if number % _SHOW_EVERY == 0 or number == total:
            progress(f"{probe}: {number} of {total} prompts")

    pairs = make_pairs(documents, documents[:: effort.question_stride], writer, random(0))
    needles = make_needles(documents, writer, random(1), effort.needle_names)
    repeats = make_repeats(writer.ordinary_ids, random(2), effort.sequences)
    judged = make_pairs(unseen, unseen[:: effort.question_stride], writer, random(3))
    return Measured(
        calibration=measure_documents(engine, pairs, counted, "documents"),
        needles=measure_needles(engine, needles, counted),
        induction=measure_repeats(engine, repeats, counted),
        held_out=measure_documents(engine, judged, counted, "held-out documents"),
        status=engine.status(),
    )


def head_map_of(measured: Measured, settings: Settings, model_sha256: str) -> HeadMap:
    """Return the head map that follows from what was *measured*."""
    right, wrong = measured.calibration
    seed = settings.seed

    def random(step: int) -> np.random.Generator:
        return np.random.default_rng((seed, 100 + step))

    scores: dict[Probe, Estimate] = {
        "documents": auroc_estimate(right.lookback, wrong.lookback, random(0)),
        "needle": mean_estimate(measured.needles.mass, random(1)),
        "induction": mean_estimate(measured.induction, random(2)),
        "local": mean_estimate(right.local_mass, random(3)),
        "sink": mean_estimate(right.sink_mass, random(4)),
    }
    candidates = scores["needle"].low > measured.needles.even_share
    choice = choose_heads(right.lookback, wrong.lookback, candidates, random(5))
    layers, heads = candidates.shape
    return HeadMap(
        version=2,
        model=settings.name,
        layers=layers,
        heads_per_layer=heads,
        heads=mapped_heads(scores, choice),
        model_sha256=model_sha256,
        evaluation=evaluate(*measured.held_out, choice, (seed, 200)),
        provenance={
            "command": "headwatch calibrate heads",
            "headwatch": __version__,
            "engine": measured.status.worker.engine_version,
            "dtype": measured.status.worker.dtype,
            "seed": seed,
            "questions": len(right.lookback),
            "needles": len(measured.needles.mass),
            "needle_even_share": round(measured.needles.even_share, 4),
            "sequences": len(measured.induction),
            "candidates": int(candidates.sum()),
            "cross_validated_auroc": {str(size): round(value, 4) for size, value in choice.cross_validated.items()},
        },
    )
