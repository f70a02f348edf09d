"""What a row kernel is: it turns the query rows of one layer into head summaries.

All kernels write the same numbers, those of :mod:`headwatch.capture.kernels.oracle`, within their error budgets; which one runs
is chosen when the engine starts (:mod:`headwatch.capture.kernels.choose`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from headwatch.capture.cache.reader import CacheReader
    from headwatch.capture.layers.attention import AttentionRule
    from headwatch.capture.layers.latent import LatentHeads
    from headwatch.capture.output.buffer import LayerSlot
    from headwatch.capture.plan.parts import StepPart
    from headwatch.capture.plan.step import RequestRows

    Memo = dict[Any, Any]


@dataclass(slots=True)
class LayerCall:
    """One layer of one step, as the engine's kernel has just seen it.

    Not frozen, which would take four times as long: one is made for each layer while the engine waits.
    """

    query: Tensor  # [tokens, H, D]
    cache: Tensor
    """The layer's paged cache, in the engine's layout."""
    block_table: Tensor  # int32 [requests, pages]
    output: Tensor  # [tokens, H, Dv], as the engine's kernel wrote it
    reader: CacheReader
    rule: AttentionRule
    latent: LatentHeads | None = None
    """Set where the cache holds latents: queries are absorbed into their space, values are expanded from it."""

    def queries(self, index: Tensor) -> Tensor:
        """Return the query rows *index* [R] as queries of the cache's keys, [R, H, D]."""
        picked = self.query[index]
        return picked if self.latent is None else self.latent.absorb(picked)

    def head_values(self, values: Tensor) -> Tensor:
        """Return *values* as the reader gives them, [n, KV, Dv], in the space of the heads' outputs."""
        return values if self.latent is None else self.latent.expand(values)


class RowKernel(Protocol):
    """Summarises the planned rows of one layer."""

    name: str
    carries_values: bool
    """Whether it fills ``value_mass`` and ``output_norm`` where the slot has them; where not, the oracle runs instead."""

    def summarise(self, call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot, memo: Memo) -> None:
        """Write the summaries of *rows* into *slot*.

        *memo* lives as long as the step: what a kernel prepares once for all layers it keeps there under a key of its own.
        """
        ...

    def again(
        self, rule: AttentionRule, part: StepPart, place: tuple[int, int], query: Tensor, cache: Tensor, output: Tensor,
        block_table: Tensor,
    ) -> bool:
        """Do the same for all rows of *part*, in a layer that was summarised before; return whether it was done.

        *place*: its buffer among those of the part, and its index there.

        The short way, and all that most sampled steps take.  False: nothing was done, and :meth:`summarise` is to be called.
        """
        ...

    def settle(self) -> float:
        """Return once what runs on this machine's other cores stands in its slots: the seconds that it took there.

        Called before a step ends: then the engine may give the cache's pages to other requests.
        """
        ...
