"""A peer inside the engine: queries and keys of every layer are copied out, and a client process computes the summaries.

This is the approach of vllm-lens and of vLLM-Hook, at its best: in each step only the new token's keys leave the engine and,
where the step is sampled, its queries; buffers are allocated once; one message a step.  The keys of the prompt have to leave
as well, once a request: what handing them over takes is measured apart, and a turn is charged its part of it.  Like those
peers it knows nothing of windows, softcaps or sinks, and a prefix-cache hit would leave it without keys.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from headwatch.bench.peer_messages import Done, Flush, Follow, Forget, Shape, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from headwatch.bench.child import Child
    from headwatch.capture.layers.discovery import CapturedLayer
    from headwatch.capture.plan.step import SampledRequest
    from headwatch.capture.worker import Capture


class Copier:
    """Stands where a ``Capture`` would: between the engine's steps, and behind each layer's attention."""

    def __init__(self, capture: Capture, child: Child, stride: int) -> None:
        self._layers: list[CapturedLayer] = [item for item in capture.layers.values() if item.active]
        self._runner = capture.runner
        self._child = child
        self._stride = stride
        self._step = 0
        self._sampled = False
        self._names: list[str] = []
        self._keys = torch.empty(0)
        self._queries = torch.empty(0)

    def forwards(self) -> list[tuple[Any, Callable[..., Any]]]:
        """Return for each layer its attention and the function that stands in for ``impl.forward``."""
        return [(item.layer.impl, self._wrapped(place, item)) for place, item in enumerate(self._layers)]

    def say_shape(self) -> None:
        """Tell the client what tensors look like."""
        impl = self._layers[0].layer.impl
        self._child.tell(Shape(
            layers=len(self._layers), kv_heads=impl.num_kv_heads, group=impl.num_heads // impl.num_kv_heads,
            dim=impl.head_size, scale=self._layers[0].rule.scale,
        ))  # fmt: skip

    def follow(self, requests: Mapping[str, SampledRequest]) -> float:
        """Hand over the keys that the cache holds of all running requests; return the seconds until the client has them.

        Finding them in the paged cache is not counted: a real peer takes them where the prompt is computed.
        """
        self._child.tell(Forget())
        batch = self._runner.batch()  # as the last step left it
        self._names = batch.ids
        seconds = 0.0
        for place, (name, tokens) in enumerate(zip(batch.ids, batch.sequence_lengths, strict=True)):
            spans = requests[name].spans
            keys = torch.stack([self._cached(item, place, tokens) for item in self._layers]).contiguous()
            started = time.perf_counter()
            self._child.tell(
                Follow(name, tokens, spans.ends.tolist(), [bool(flag) for flag in spans.document]), [keys.numpy().tobytes()]
            )
            self.flush()
            seconds += time.perf_counter() - started
        self._allocate()
        self._step = 0
        return seconds

    def flush(self) -> Done:
        """Return once the client has summarised everything."""
        return self._child.ask(Flush(), Done)

    def begin_step(self, scheduled: Any) -> None:  # noqa: ARG002 - the signature of the hook
        """Decide whether this step is sampled."""
        self._sampled = self._step % self._stride == 0
        self._step += 1

    def end_step(self) -> None:
        """Send what the layers left in the buffers."""
        tensors = [self._keys.numpy().tobytes()]
        if self._sampled:
            tensors.append(self._queries.numpy().tobytes())
        self._child.tell(Step(self._names, self._sampled), tensors)

    def _wrapped(self, place: int, item: CapturedLayer) -> Callable[..., Any]:
        original = item.layer.impl.forward

        def forward(layer: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(layer, query, key, *args, **kwargs)
            rows = len(self._names)
            self._keys[place].copy_(key[:rows].view(self._keys[place].shape))
            if self._sampled:
                self._queries[place].copy_(query[:rows].view(self._queries[place].shape))
            return result

        return forward

    def _cached(self, item: CapturedLayer, place: int, tokens: int) -> Tensor:
        """Return the keys of one layer and request, [KV, tokens, D]."""
        assert item.reader is not None
        blocks = self._runner.block_table(item.name)[place]
        return item.reader.read(item.layer.kv_cache, blocks, tokens)[0].permute(1, 0, 2)

    def _allocate(self) -> None:
        impl = self._layers[0].layer.impl
        kv_heads, group, dim = impl.num_kv_heads, impl.num_heads // impl.num_kv_heads, impl.head_size
        self._keys = torch.empty(len(self._layers), len(self._names), kv_heads, dim)
        self._queries = torch.empty(len(self._layers), len(self._names), kv_heads, group, dim)
