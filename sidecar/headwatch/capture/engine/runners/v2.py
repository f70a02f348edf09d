"""vLLM's V2 model runner (``v1/worker/gpu/model_runner.py``, and on the CPU ``v1/worker/cpu/model_runner.py``), 0.32.

Its ``InputBatch`` of a step becomes an attribute (``execute_model_state``) only after the forward pass, too late for us.
So its ``prepare_attn``, which every real step calls once with the batch in its final order and which returns the pages of
each cache group, is wrapped on the instance: two references are kept, nothing is read.  Dummy runs call
``prepare_dummy_attn`` instead and leave no batch behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.engine.runners.base import StepBatch
from headwatch.capture.engine.runners.groups import CacheGroups, kernel_pages
from headwatch.errors import EngineStateError

if TYPE_CHECKING:
    from torch import Tensor


class V2Runner:
    """The adapter to ``GPUModelRunner`` and ``CPUModelRunner`` of V2."""

    name = "v2"

    def __init__(self, runner: Any) -> None:
        self._groups = CacheGroups(runner)
        self._prepared: tuple[Any, Any] | None = None
        self._pages: tuple[Tensor, ...] = ()
        original = runner.prepare_attn

        def prepare_attn(input_batch: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(input_batch, *args, **kwargs)
            self._prepared = input_batch, result
            return result

        runner.prepare_attn = prepare_attn

    def batch(self) -> StepBatch:
        """Return the batch that the runner prepared last; each one once."""
        if self._prepared is None:
            raise EngineStateError("the V2 model runner prepared no batch for this step")
        (batch, (self._pages, _)), self._prepared = self._prepared, None
        count = batch.num_reqs
        starts = batch.query_start_loc_np[: count + 1]
        lengths = batch.num_computed_tokens_np[:count] + (starts[1:] - starts[:-1])
        return StepBatch(list(batch.req_ids), starts.tolist(), lengths.tolist())

    def block_table(self, layer_name: str) -> Tensor:
        """Return the pages of each request in the layer's cache group."""
        number, group = self._groups.of(layer_name)
        return kernel_pages(group, self._pages[number])
