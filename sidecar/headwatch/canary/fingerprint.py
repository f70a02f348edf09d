"""A fingerprint: how a model reads the canary prompts, and how far it strays from that by itself.  A portable file.

JSON with a version; arrays as in :mod:`headwatch.canary.arrays`.  It holds no text of prompts and no weights, so it may leave
the machine: CI pins one of production and holds a release candidate against it.  Two fingerprints can be compared where prompts
and the shape of the model are the same.  Size: about 0.3 MB for the packaged model, 10 MB for one of 80 layers and 64 heads.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch import __version__
from headwatch.canary.arrays import MAX_BYTES, pack, unpack
from headwatch.canary.noise import MIN_RUNS, ROUNDING, log_statistics, pooled_scale
from headwatch.errors import CanaryError
from headwatch.model import CANARY_ROWS, FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.canary.prompts import PromptSet
    from headwatch.canary.signature import Run

FORMAT = 1
EXACT_DTYPE = "float32"


class PromptPrint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt of a fingerprint."""

    name: str
    prompt_tokens: int
    digest: str
    adapter: str
    values: str
    """[R, L, H, F]: the mean of the pinned runs."""
    span: float
    """Largest deviation of a pinned run from the mean of the others."""


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far pinned runs strayed; see :mod:`headwatch.canary.noise`."""

    scale: str
    """[L, H, F]."""
    log_mean: tuple[float | None, ...]
    """[L]; None where a layer is not captured."""
    log_spread: tuple[float | None, ...]


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's fingerprint."""

    format: int
    created_ns: int
    headwatch: str
    model: str
    revision: str
    dtype: str
    engine_version: str
    layers: int
    heads: int
    features: tuple[str, ...]
    prompt_set: str
    """Version of the prompts, ..."""
    prompt_digest: str
    """... and the digest of their content."""
    runs: int
    prompts: tuple[PromptPrint, ...]
    noise: Noise | None = None
    """None where all pinned runs were the same but for rounding, of a float32 engine or of another in enough company."""
    note: str = ""

    def shape(self, prompt: PromptPrint) -> tuple[int, int, int, int]:
        """Return the shape of the values of *prompt*."""
        return min(CANARY_ROWS, prompt.prompt_tokens), self.layers, self.heads, len(self.features)

    def values(self, prompt: PromptPrint) -> NDArray[np.float32]:
        """Return what *prompt* looks like, [R, L, H, F]."""
        return unpack(prompt.values, self.shape(prompt))


def learn(runs: Sequence[Run], prompts: PromptSet, created_ns: int, note: str = "") -> Fingerprint:
    """Return the fingerprint of the model that answered *runs*.

    Raises:
        CanaryError: A run is incomplete, the runs are not of one model, or too few for a dtype whose noise must be measured.
    """
    worker = runs[0].worker if runs else None
    for run in runs:
        if run.failures or worker is None:
            raise CanaryError("incomplete", f"a run to pin is incomplete: {run.failures or 'nothing was captured'}")
        for name, item in run.signatures.items():
            first = runs[0].signatures[name]
            alike = (item.prompt_tokens, item.digest, item.adapter) == (first.prompt_tokens, first.digest, first.adapter)
            if not alike or _engine(item.worker) != _engine(worker):
                raise CanaryError("mixed", f"the runs to pin are not of one model, engine and chat template: prompt {name!r}")
    if worker is None:
        raise CanaryError("incomplete", "there is no run to pin")
    names = [item.name for item in prompts.prompt]
    readings = [np.stack([run.signatures[name].values for run in runs]) for name in names]  # each [N, R, L, H, F]
    spans = [_span(item) for item in readings]
    exact = max(spans) <= ROUNDING / 4  # a quarter: the rest is for other loads and machines
    if not (exact and worker.dtype == EXACT_DTYPE) and len(runs) < MIN_RUNS:
        raise CanaryError("few_runs", f"{len(runs)} runs say too little of noise in {worker.dtype}: pin at least {MIN_RUNS}")
    found = runs[0].signatures
    return Fingerprint(
        FORMAT, created_ns, __version__, worker.model, worker.revision, worker.dtype, worker.engine_version, worker.layers,
        worker.heads, FEATURES, prompts.version, prompts.digest, len(runs),
        tuple(
            PromptPrint(name, found[name].prompt_tokens, found[name].digest, found[name].adapter,
                        pack(item.mean(axis=0, dtype=np.float64).astype(np.float32)), span)
            for name, item, span in zip(names, readings, spans, strict=True)
        ),
        None if exact else _measured(readings), note,
    )  # fmt: skip


def save(fingerprint: Fingerprint, path: Path) -> None:
    """Write *fingerprint* to *path*: complete or not at all, for its owner alone.

    Raises:
        CanaryError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(number, "wb") as stream:
            stream.write(msgspec.json.encode(fingerprint))
        Path(temporary).replace(path)
    except OSError as error:
        raise CanaryError("fingerprint", f"cannot write fingerprint {path}: {error.strerror}") from error


def load(path: Path) -> Fingerprint:
    """Return the fingerprint in *path*.

    Raises:
        CanaryError: It cannot be read, or is none that this version of headwatch reads.
    """
    try:
        if path.stat().st_size > 2 * MAX_BYTES:
            raise CanaryError("fingerprint", f"{path}: larger than any fingerprint")
        content = path.read_bytes()
    except OSError as error:
        raise CanaryError("fingerprint", f"cannot read fingerprint {path}: {error.strerror}") from error
    try:
        found = msgspec.json.decode(content, type=Fingerprint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CanaryError("fingerprint", f"{path} is no fingerprint: {error}") from error
    if found.format != FORMAT:
        raise CanaryError("fingerprint", f"{path}: a fingerprint of format {found.format}; this version reads {FORMAT}")
    if found.features != FEATURES:
        raise CanaryError("fingerprint", f"{path}: its features are {', '.join(found.features)}, not those of this version")
    for prompt in found.prompts:
        found.values(prompt)  # refuses what cannot be unpacked now rather than at a run
    return found


def _measured(readings: list[NDArray[np.float32]]) -> Noise:
    scale = pooled_scale(readings)
    logs = log_statistics(readings, scale)  # [N, L]
    mean, spread = logs.mean(axis=0), logs.std(axis=0, ddof=1)
    return Noise(pack(scale), _plain(mean), _plain(spread))


def _plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)


def _span(reading: NDArray[np.float32]) -> float:
    """Return how far the run that strays most is from the mean of the others, in its largest element."""
    if len(reading) < 2:  # noqa: PLR2004 - one run strays from nothing
        return 0.0
    away = np.abs(reading - reading.mean(axis=0)) * (len(reading) / (len(reading) - 1))
    return float(np.nanmax(away)) if not np.isnan(away).all() else 0.0


def _engine(worker: object) -> tuple[object, ...]:
    return tuple(getattr(worker, name) for name in ("model", "revision", "dtype", "engine_version", "layers", "heads"))
