"""vLLM's V1 model runner (``v1/worker/gpu_model_runner.py``, and on the CPU ``cpu_model_runner.py``), 0.32.

The batch stands in its final order once the first layer runs: ``input_batch.req_ids`` is the row order then, and
``_prepare_inputs`` has written the host side of ``query_start_loc`` and ``optimistic_seq_lens_cpu``.  The latter is exact
unless draft tokens are scheduled asynchronously, which :mod:`headwatch.capture.engine.modes` refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.engine.runners.base import StepBatch
from headwatch.capture.engine.runners.groups import CacheGroups, kernel_pages

if TYPE_CHECKING:
    from torch import Tensor


class V1Runner:
    """The adapter to ``GPUModelRunner`` and ``CPUModelRunner`` of V1."""

    name = "v1"

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._groups = CacheGroups(runner)
        self._tables: dict[int, Tensor] = {}
        """Of the step in progress, by the identity of the layers' group."""

    def batch(self) -> StepBatch:
        """Return the batch of the step in progress."""
        runner = self._runner
        self._tables = {}
        ids = list(runner.input_batch.req_ids)
        return StepBatch(
            ids,
            runner.query_start_loc.np[: len(ids) + 1].tolist(),
            runner.optimistic_seq_lens_cpu[: len(ids)].tolist(),
        )

    def block_table(self, layer_name: str) -> Tensor:
        """Return the pages of each request in the layer's cache group."""
        number, group = self._groups.of(layer_name)
        table = self._tables.get(id(group))
        if table is None:
            batch = self._runner.input_batch
            table = kernel_pages(group, batch.block_table[number].get_device_tensor(len(batch.req_ids)))
            self._tables[id(group)] = table
        return table
