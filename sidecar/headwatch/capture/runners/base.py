"""What capture asks of the engine's model runner, and the step that it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The batch of the step in progress, in the engine's row order."""

    ids: list[str]
    """The engine's request ids."""
    query_starts: list[int]
    """Request i has its queries in ``[query_starts[i], query_starts[i + 1])``."""
    sequence_lengths: list[int]
    """Positions in the cache after this step."""


class Runner(Protocol):
    """An adapter to one of vLLM's model runners."""

    name: str

    def batch(self, metadata: Any) -> StepBatch:
        """Return the batch as it stands when the first layer of the step runs with *metadata*."""
        ...

    def block_table(self, layer_name: str, metadata: Any) -> Tensor:
        """Return the pages [requests, pages] of the cache that *layer_name* reads."""
        ...
