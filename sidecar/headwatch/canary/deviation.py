"""How a canary run differs from a fingerprint: by prompt, layer and head, and where that is more than noise.

Costs one pass over the values of a run: some milliseconds for the packaged model, 0.3 s for one of 80 layers and 64 heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.canary.arrays import unpack
from headwatch.canary.noise import ROUNDING, layer_statistic, pooled_mean, score_limit, scores
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.canary.fingerprint import Fingerprint, Noise
    from headwatch.canary.signature import Run


OTHER_SHAPE = "shape"


@dataclass(frozen=True, slots=True)
class PromptDeviation:
    """One prompt of a run against its fingerprint."""

    prompt: str
    span: float
    """How far pinned runs strayed at most."""
    text_changed: bool
    """Whether the prompt came to other tokens: its number of tokens, or the digest of template and system text, differs."""
    adapter_changed: bool
    prompt_tokens: tuple[int, int]
    """Before and after."""
    before: NDArray[np.float32] = field(repr=False)  # [R, L, H, F]
    after: NDArray[np.float32] = field(repr=False)

    @property
    def largest(self) -> float:
        """Return the largest absolute deviation."""
        return float(np.nanmax(self.size, initial=0.0))

    @property
    def size(self) -> NDArray[np.float32]:
        """Return absolute deviations [R, L, H, F]; NaN where neither defines a feature, 1 where one of them alone does."""
        before, after = np.isnan(self.before), np.isnan(self.after)
        return np.where(before ^ after, np.float32(1.0), np.abs(self.after - self.before))


@dataclass(frozen=True, slots=True)
class Deviation:
    """A run against its fingerprint.  L layers, H heads."""

    prompts: tuple[PromptDeviation, ...]
    departs: NDArray[np.bool_]  # [L, H]: more than noise explains, in any prompt
    layer_departs: NDArray[np.bool_]  # [L]
    mean: NDArray[np.float64]  # [L]: mean absolute deviation; NaN where a layer is not captured
    scores: NDArray[np.float64] | None
    """[L] t scores, where noise was measured; None where the fingerprint is exact."""
    limit: float
    """What a score, or a deviation of an exact fingerprint, must exceed."""
    missing: NDArray[np.int64]
    """Numbers of the layers that the fingerprint has and the run has not, or not in every prompt: they were not compared."""

    @property
    def captured(self) -> NDArray[np.int64]:
        """Return the numbers of the layers that are captured, ascending."""
        return np.flatnonzero(~np.isnan(self.mean))

    @property
    def failed(self) -> bool:
        """Return whether the run is not of the model that was pinned."""
        return bool(self.layer_departs.any()) or any(item.text_changed or item.adapter_changed for item in self.prompts)


def deviation(fingerprint: Fingerprint, run: Run) -> Deviation:
    """Return how *run* differs from *fingerprint*, over the prompts that it has.

    Raises:
        CanaryError: The run has no prompt or no layer in common with it, or is of a model of another shape.
    """
    worker = run.worker
    known = {item.name: item for item in fingerprint.prompts}
    if worker is None or not run.signatures.keys() & known.keys():
        why = run.failures or "nothing was captured"
        raise CanaryError(run.reason or "incomplete", f"no prompt of the fingerprint was read: {why}")
    if (worker.layers, worker.heads) != (fingerprint.layers, fingerprint.heads):
        raise CanaryError(OTHER_SHAPE, f"the fingerprint is of a model of {fingerprint.layers} layers of {fingerprint.heads} "
                                       f"heads, this one has {worker.layers} of {worker.heads}")
    prompts = []
    for name, signature in run.signatures.items():
        prompt = known.get(name)
        if prompt is None:
            continue
        tokens = (prompt.prompt_tokens, signature.prompt_tokens)
        before, after = fingerprint.values(prompt), signature.values
        rows = min(len(before), len(after))  # of a template that makes a prompt shorter than the rows that are read
        prompts.append(
            PromptDeviation(
                name, prompt.span, tokens[0] != tokens[1] or prompt.digest != signature.digest,
                prompt.adapter != signature.adapter, tokens, before[len(before) - rows :], after[len(after) - rows :],
            )
        )  # fmt: skip
    pinned, captured = _layers(prompts)
    missing = np.flatnonzero(pinned & ~captured)
    if not captured.any():
        raise CanaryError("incomplete", f"no layer of the fingerprint was captured in every prompt; it has {_numbers(pinned)}")
    found = tuple(_masked(item, captured) for item in prompts)
    sizes = [item.size for item in found]
    mean = np.where(captured, pooled_mean(sizes, (0, 2, 3)), np.nan)
    if fingerprint.noise is None:
        heads = np.max([np.nanmax(size, axis=(0, 3), initial=0.0) for size in sizes], axis=0)  # [L, H]
        departs = (heads > ROUNDING) & captured[:, None]
        return Deviation(found, departs, departs.any(axis=1), mean, None, ROUNDING, missing)
    return _against_noise(found, sizes, mean, missing, fingerprint.noise, fingerprint)


def _against_noise(
    prompts: tuple[PromptDeviation, ...], sizes: list[NDArray[np.float32]], mean: NDArray[np.float64],
    missing: NDArray[np.int64], noise: Noise, fingerprint: Fingerprint,
) -> Deviation:
    scale = unpack(noise.scale, (fingerprint.layers, fingerprint.heads, len(fingerprint.features)))
    log_mean, log_spread = (
        np.array([np.nan if value is None else value for value in values]) for values in (noise.log_mean, noise.log_spread)
    )
    found = np.where(np.isnan(mean), np.nan, scores(layer_statistic(sizes, scale), log_mean, log_spread, fingerprint.runs))
    limit = score_limit(fingerprint.runs, int((~np.isnan(log_mean)).sum()))
    layers = np.nan_to_num(found, nan=-np.inf) > limit
    by_head = np.sqrt(pooled_mean([np.square(item / scale) for item in sizes], (0, 3)))  # [L, H]
    heads = (by_head > _HEAD_RATIO) & layers[:, None]
    heads[layers & ~heads.any(axis=1)] = True  # it shows in all of them together
    return Deviation(prompts, heads, layers, mean, found, limit, missing)


_HEAD_RATIO = 3.0
"""A head of a layer that departs is named where it strays so many times as far as it does by itself."""


def _masked(item: PromptDeviation, captured: NDArray[np.bool_]) -> PromptDeviation:
    """Return *item* without the layers that one side has not captured: that is no change of the model."""
    before, after = (np.where(captured[:, None, None], values, np.float32(np.nan)) for values in (item.before, item.after))
    return replace(item, before=before, after=after)


def _layers(prompts: list[PromptDeviation]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which layers [L] the fingerprint has anything of, and which have anything on both sides of every prompt."""
    before, after = (
        np.array([~np.isnan(values).all(axis=(0, 2, 3)) for values in side])  # [prompts, L]
        for side in ([item.before for item in prompts], [item.after for item in prompts])
    )
    pinned: NDArray[np.bool_] = np.logical_or.reduce(before)
    shared: NDArray[np.bool_] = np.logical_and.reduce(before & after)
    return pinned, shared


def _numbers(layers: NDArray[np.bool_]) -> str:
    return ", ".join(map(str, np.flatnonzero(layers))) or "none"
