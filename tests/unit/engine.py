"""The few attributes of vLLM's worker that capture reads, with a real paged cache and a real attention in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import torch

from headwatch.capture.kernels.oracle import weights
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.model import Document, RequestContext, Span

HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 8, 16
LAYER_NAMES = ("model.layers.0.self_attn.attn", "model.layers.1.self_attn.attn")


class CPUAttentionBackendImpl:
    """Named as vLLM's own: the reader is chosen by this name."""

    attn_type = "decoder"
    kv_sharing_target_layer_name = None
    is_fp8_kv_cache = False
    sliding_window = -1
    logits_soft_cap = 0
    alibi_slopes = None
    sinks = None
    num_heads = HEADS

    def __init__(self, scale: float = 0.35) -> None:
        self.scale = scale
        self.forwards = 0

    def forward(
        self, layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, output: Any
    ) -> Any:
        self.forwards += 1
        output.copy_(attn_metadata.result)
        return output


class Engine:
    """One request, 40 cached positions in three scattered blocks."""

    positions = 40

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.keys = torch.randn(self.positions, KV_HEADS, DIM, generator=generator)
        self.values = torch.randn(self.positions, KV_HEADS, DIM, generator=generator)
        self.cache = torch.zeros(8, KV_HEADS, BLOCK, 2 * DIM)
        self.blocks = [6, 1, 3]
        flat = self.cache.view(8, KV_HEADS, 2, BLOCK * DIM)
        for token in range(self.positions):
            block, slot = self.blocks[token // BLOCK], token % BLOCK
            flat[block, :, 0].view(KV_HEADS, DIM, BLOCK)[:, :, slot] = self.keys[token]
            flat[block, :, 1].view(KV_HEADS, BLOCK, DIM)[:, slot] = self.values[token]
        self.layers = {name: SimpleNamespace(impl=CPUAttentionBackendImpl(), isa="vec") for name in LAYER_NAMES}
        pages = torch.tensor([[0, 0, 0], self.blocks])
        self.runner = SimpleNamespace(
            input_batch=SimpleNamespace(
                req_ids=["other", "r-1"], block_table=[SimpleNamespace(get_device_tensor=lambda count: pages[:count])]
            ),
            query_start_loc=SimpleNamespace(np=np.zeros(8, np.int32)),
            optimistic_seq_lens_cpu=torch.zeros(8, dtype=torch.int32),
            attn_groups=[[SimpleNamespace(layer_names=list(LAYER_NAMES), kernel_block_size=None)]],
            cudagraph_dispatcher=None,
        )
        self.worker = SimpleNamespace(
            model_runner=self.runner,
            rank=0,
            vllm_config=SimpleNamespace(
                instance_id="x",
                parallel_config=SimpleNamespace(
                    tensor_parallel_size=1, pipeline_parallel_size=1, prefill_context_parallel_size=1,
                    decode_context_parallel_size=1, nnodes_within_dp=1, distributed_executor_backend="uni",
                    use_ubatching=False, data_parallel_index=0, data_parallel_size=1,
                ),
                scheduler_config=SimpleNamespace(async_scheduling=False),
                cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
                attention_config=SimpleNamespace(hisparse_config=None),
                speculative_config=None,
                diffusion_config=None,
                kv_transfer_config=None,
                compilation_config=SimpleNamespace(static_forward_context=self.layers),
                model_config=SimpleNamespace(
                    served_model_name="tiny", revision=None, dtype=torch.float32, runner_type="generate",
                    hf_text_config=SimpleNamespace(), rswa_window=None, get_num_attention_heads=lambda _: HEADS,
                    get_total_num_hidden_layers=lambda: len(LAYER_NAMES),
                ),
            ),
        )

    def scheduled(self, *, new: bool, rows: int = 1, finished: tuple[str, ...] = (), context: str | None = None) -> Any:
        arguments = {CONTEXT_KEY: context if context is not None else self.context()}
        return SimpleNamespace(
            finished_req_ids=set(finished),
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id="r-1", sampling_params=SimpleNamespace(extra_args=arguments), lora_request=None,
                    num_computed_tokens=0,
                )
            ] if new else [],
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=["other"] if new else ["other", "r-1"], num_computed_tokens=[4] if new else [4, self.positions]
            ),
            num_scheduled_tokens={"other": 1, "r-1": rows} if rows else {},
            scheduled_spec_decode_tokens={},
        )

    def context(self) -> str:
        spans = [Span("system", 0, 4), Span("document", 4, 24, 0), Span("user", 24, 32)]
        return msgspec.json.encode(RequestContext("r", 32, spans, [Document("d")])).decode()

    def attend(self, length: int, rows: int = 1) -> dict[str, torch.Tensor]:
        """Run every layer's attention for the last *rows* of *length* positions; return the outputs."""
        generator = torch.Generator().manual_seed(length)
        query = torch.randn(1 + rows, HEADS, DIM, generator=generator)  # the first row is the other request's
        positions = torch.arange(length - rows, length)
        attention, _ = weights(query[1:], self.keys[:length], positions, AttentionRule(0.35))
        grouped = attention.reshape(rows, KV_HEADS, HEADS // KV_HEADS, length)
        result = torch.zeros(1 + rows, HEADS, DIM)
        result[1:] = torch.einsum("rkgn,nkd->rkgd", grouped, self.values[:length]).reshape(rows, HEADS, DIM)
        metadata = SimpleNamespace(result=result)
        self.runner.query_start_loc.np[:3] = [0, 1, 1 + rows]
        self.runner.optimistic_seq_lens_cpu[:2] = torch.tensor([5, length])
        outputs = {}
        for name, layer in self.layers.items():
            outputs[name] = torch.zeros(1 + rows, HEADS, DIM)
            layer.impl.forward(layer, query, None, None, self.cache, metadata, outputs[name])
        return outputs
