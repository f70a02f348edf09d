"""Attention recomputed in float64 from the queries and keys that the engine itself used.

In bfloat16 an engine and ``transformers`` round differently in every layer below, so comparing with the latter says
little about capture.  Here the engine's own Q and K are taken as they are, and everything after them (scale, mask,
softmax) is done again in float64, with the scale that the model's definition asks for.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from headwatch.verify.rules import LayerRule


class EngineAttention:
    """Records attention as an observer of :class:`headwatch.capture.worker.Capture`.

    Holds 8 bytes for each layer, head, row and visible position: about 350 MB for 400 rows of the demo model.
    """

    def __init__(self, rules: Mapping[int, LayerRule]) -> None:
        self._rules = rules
        self._weights: dict[tuple[str, int, int], NDArray[np.float64]] = {}

    def observe(
        self, layer: int, rows: list[tuple[str, int]], query: Tensor, keys: list[Tensor], _scale: float
    ) -> None:
        """Take one layer of one step: R rows (engine id, position), *query* [R, H, D], *keys* [n, KV, D] a request."""
        queries = query.double().numpy()
        by_request = groupby(enumerate(rows), key=lambda item: item[1][0])
        for (engine_id, members), cached in zip(by_request, keys, strict=True):
            request_keys = cached.double().numpy()
            for row, (_, position) in members:
                rule = self._rules[layer]
                seen = request_keys if rule.cross else request_keys[: position + 1]
                self._weights[engine_id, layer, position] = attend(queries[row], seen, rule)

    def weights(self, engine_id: str, layer: int, position: int) -> NDArray[np.float64]:
        """Return the weights [H, position + 1] of one row.

        Raises:
            KeyError: The row was not observed.
        """
        return self._weights[engine_id, layer, position]


def attend(query: NDArray[np.float64], keys: NDArray[np.float64], rule: LayerRule) -> NDArray[np.float64]:
    """Return softmax(scale · q kᵀ) [H, n] of the last position, for *query* [H, D] and *keys* [n, KV, D]."""
    n, kv_heads, _ = keys.shape
    per_head = np.repeat(keys, len(query) // kv_heads, axis=1)  # [n, H, D]: query heads share keys in runs
    logits = np.einsum("hd,nhd->hn", query, per_head) * rule.scale
    if rule.softcap:
        logits = rule.softcap * np.tanh(logits / rule.softcap)
    if rule.alibi:
        logits -= np.array(rule.alibi)[:, None] * np.arange(n - 1, -1, -1)
    logits[:, : 0 if rule.cross else rule.first_visible(n - 1)] = -np.inf
    sinks = np.array(rule.sinks)[:, None] if rule.sinks else np.full((len(query), 1), -np.inf)
    largest = np.maximum(logits.max(axis=1, keepdims=True), sinks)
    powers = np.exp(logits - largest)
    weights: NDArray[np.float64] = powers / (powers.sum(axis=1, keepdims=True) + np.exp(sinks - largest))
    return weights
