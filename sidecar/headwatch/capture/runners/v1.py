"""vLLM's V1 model runner (``v1/worker/gpu_model_runner.py``, and on the CPU ``cpu_model_runner.py``), 0.32.

The batch stands in its final order once the first layer runs: ``input_batch.req_ids`` is the row order then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.runners.base import StepBatch

if TYPE_CHECKING:
    from torch import Tensor


class V1Runner:
    """The adapter to ``GPUModelRunner`` and ``CPUModelRunner``."""

    name = "v1"

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def batch(self, metadata: Any) -> StepBatch:
        """Return the batch of the step in progress."""
        ids = list(self._runner.input_batch.req_ids)
        return StepBatch(
            ids,
            metadata.query_start_loc[: len(ids) + 1].tolist(),
            metadata.seq_lens[: len(ids)].tolist(),
        )

    def block_table(self, layer_name: str, metadata: Any) -> Tensor:  # noqa: ARG002 - V1's metadata carries it
        """Return the pages of each request."""
        pages: Tensor = metadata.block_table
        return pages
