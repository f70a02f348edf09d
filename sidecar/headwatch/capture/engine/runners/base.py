"""What capture asks of the engine's model runner, and the step that it answers with.

Answers come from the runner's own buffers on the host, never from metadata on the device: reading those would make the
host wait for the device in the middle of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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
    """Positions in the cache after this step, draft tokens included."""


class Runner(Protocol):
    """An adapter to one of vLLM's model runners."""

    name: str

    def batch(self) -> StepBatch:
        """Return the batch as it stands when the first layer of the step runs.

        Raises:
            EngineStateError: The runner has prepared no batch for this step.
        """
        ...

    def block_table(self, layer_name: str) -> Tensor:
        """Return the pages, int32 [requests, pages] on the device, of the cache that *layer_name* reads.

        Raises:
            CaptureRefused: With reason ``cache_group`` where the layer belongs to no group of the cache.
        """
        ...
