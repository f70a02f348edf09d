"""What capture takes from vLLM: every symbol that it reads, wraps or is called by, and why.

One table, held against the source of a release without importing it, so that a release which moves something is found
before it is let in (:data:`headwatch.capture.plugin.SUPPORTED_ENGINES`), and one place to look when it does.  The adapters
ask it at start-up for what a model runner must have.

A symbol is ``module:Class.member`` (a method, a property, a dataclass field, or an attribute that a method of the class
sets), ``module:function``, ``module:Class``, or ``module:name`` for a name that the module imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["front end", "engine core", "worker", "layers", "v1 runner", "v2 runner"]


@dataclass(frozen=True, slots=True)
class Need:
    """One symbol of the engine."""

    part: Part
    symbol: str
    why: str
    parameters: tuple[str, ...] = ()
    """Parameters by which it is called, or that its wrapper looks at."""

    @property
    def member(self) -> str:
        """Return the last name of the symbol."""
        return self.symbol.rpartition(":")[2].rpartition(".")[2]


_ENGINE = "vllm.v1.engine"
_OUTPUT = "vllm.v1.core.sched.output"
_BASE = "vllm.v1.worker.worker_base"
_V1 = "vllm.v1.worker.gpu_model_runner"
_V2 = "vllm.v1.worker.gpu.model_runner"
_PARALLEL = "vllm.config.parallel:ParallelConfig"
_CONFIG = "vllm.config.vllm:VllmConfig"
_LAYERS = "vllm.model_executor.layers.attention"
_BACKENDS = "vllm.v1.attention.backends"
_GPU_BACKENDS = ("flash_attn:FlashAttentionImpl", "triton_attn:TritonAttentionImpl", "flashinfer:FlashInferImpl")
_LOGITS = (
    "num_heads", "num_kv_heads", "head_size", "scale", "logits_soft_cap", "sliding_window", "alibi_slopes", "sinks",
    "kv_cache_dtype",
)  # fmt: skip
_FORWARD = ("layer", "query", "key", "value", "kv_cache", "attn_metadata", "output")
_MODEL = "vllm.config.model:ModelConfig"


def _members(part: Part, owner: str, why: str, *names: str) -> tuple[Need, ...]:
    return tuple(Need(part, f"{owner}.{name}", why) for name in names)


CONTRACT: tuple[Need, ...] = (
    # The front end: where a request has its tokens and its parameters together.
    Need("front end", f"{_ENGINE}.input_processor:InputProcessor.process_inputs", "is wrapped: annotates sampled requests"),
    Need("front end", f"{_ENGINE}.input_processor:InputProcessor.tokenizer", "finds spans in the prompt"),
    *_members(
        "front end", f"{_ENGINE}:EngineCoreRequest", "says what the prompt is made of", "request_id", "external_req_id",
        "prompt_token_ids", "prompt_embeds", "mm_features", "sampling_params", "lora_request", "trace_headers", "resumable",
    ),
    Need("front end", "vllm.sampling_params:SamplingParams.extra_args", "carries the context to the workers"),
    *_members(
        "front end", "vllm.multimodal.inputs:MultiModalFeatureSpec", "says where images and sounds lie", "modality",
        "mm_position",
    ),
    *_members("front end", "vllm.multimodal.inputs:PlaceholderRange", "says where images and sounds lie", "offset", "length"),
    Need("front end", "vllm.lora.request:LoRARequest.lora_name", "is part of the stratum"),
    # The engine core: one decision for all ranks.
    Need("engine core", "vllm.config.scheduler:SchedulerConfig.get_scheduler_cls", "is wrapped: names the scheduler's class"),
    Need("engine core", "vllm.v1.core.sched.scheduler:Scheduler.schedule", "is wrapped: marks steps that may hold rows"),
    Need("engine core", "vllm.v1.core.sched.scheduler:Scheduler.vllm_config", "says how many ranks the engine has"),
    *_members(
        "engine core", f"{_OUTPUT}:SchedulerOutput", "says what a step computes", "scheduled_new_reqs", "scheduled_cached_reqs",
        "num_scheduled_tokens", "scheduled_spec_decode_tokens", "finished_req_ids",
    ),
    *_members(
        "engine core", f"{_OUTPUT}:NewRequestData", "says which requests begin", "req_id", "sampling_params",
        "num_computed_tokens", "lora_request",
    ),
    *_members(
        "engine core", f"{_OUTPUT}:CachedRequestData", "says which positions a step computes", "req_ids", "num_computed_tokens"
    ),
    # The worker: what it is, and when it steps.
    Need("worker", "vllm.plugins:load_general_plugins", "calls us in every process"),
    Need("worker", f"{_BASE}:WorkerWrapperBase.initialize_from_config", "is wrapped: the cache has been allocated after it"),
    Need("worker", f"{_BASE}:WorkerWrapperBase.execute_model", "is wrapped: one step", ("scheduler_output",)),
    *_members("worker", f"{_BASE}:WorkerWrapperBase", "leads to the worker", "worker"),
    *_members(
        "worker", "vllm.v1.worker.gpu_worker:Worker", "is the worker that both runners have", "use_v2_model_runner",
        "reload_weights", "finish_weight_update", "sleep", "wake_up", "execute_model",
    ),
    *_members("worker", f"{_BASE}:WorkerBase", "says who it is", "rank", "vllm_config", "model_runner"),
    *_members(
        "worker", _CONFIG, "tells modes that are refused", "model_config", "cache_config", "parallel_config",
        "scheduler_config", "compilation_config", "attention_config", "speculative_config", "diffusion_config",
        "kv_transfer_config", "instance_id",
    ),
    *_members(
        "worker", _PARALLEL, "tells the ranks of an engine apart", "tensor_parallel_size", "pipeline_parallel_size",
        "prefill_context_parallel_size", "decode_context_parallel_size", "nnodes_within_dp", "distributed_executor_backend",
        "use_ubatching", "data_parallel_index", "world_size",
    ),
    *_members(
        "worker", _MODEL, "says what is served", "runner_type", "hf_text_config", "served_model_name", "revision", "dtype",
        "get_total_num_hidden_layers",
    ),
    Need("worker", f"{_MODEL}.get_num_attention_heads", "counts the heads of one rank", ("parallel_config",)),
    Need("worker", "vllm.config.scheduler:SchedulerConfig.async_scheduling", "with speculation, lengths are guesses"),
    Need("worker", "vllm.config.cache:CacheConfig.kv_sharing_fast_prefill", "lets layers run on other rows"),
    Need("worker", "vllm.config.compilation:CompilationConfig.static_forward_context", "has every attention layer by name"),
    # The layers: what each does to its logits, and how its cache lies in memory.
    Need("layers", f"{_LAYERS}.attention:unified_attention_with_output", "calls impl.forward outside of compiled graphs"),
    Need("layers", f"{_LAYERS}.mla_attention:unified_mla_attention_with_output", "calls forward_impl, as above"),
    *_members(
        "layers", f"{_LAYERS}.attention:Attention", "says what a layer is", "impl", "attn_type", "use_mm_prefix", "query_quant",
        "kv_sharing_target_layer_name",
    ),
    *_members("layers", f"{_LAYERS}.chunked_local_attention:ChunkedLocalAttention", "has chunks", "attention_chunk_size"),
    Need("layers", f"{_LAYERS}.cross_attention:CrossAttention", "is told by its name"),
    Need("layers", f"{_LAYERS}.mm_encoder_attention:MMEncoderAttention", "is left out by its name"),
    Need("layers", "vllm.model_executor.layers.mamba.abstract:MambaBase.mamba_type", "tells what is no attention"),
    *(
        need
        for name in ("cpu_attn:CPUAttentionBackendImpl", *_GPU_BACKENDS)
        for need in (
            Need("layers", f"{_BACKENDS}.{name}.forward", "is wrapped", _FORWARD),
            *_members("layers", f"{_BACKENDS}.{name}", "says what a layer does to its logits", *_LOGITS),
        )
    ),
    *_members(
        "layers", f"{_BACKENDS}.cpu_attn:CPUAttentionBackendImpl", "tells how the cache is read", "attn_type", "is_fp8_kv_cache"
    ),
    Need("layers", f"{_BACKENDS}.triton_attn:TritonAttentionImpl.fp8_dtype", "tells how the cache is read"),
    Need("layers", f"{_LAYERS}.mla_attention:MLAAttention.forward_impl", "is wrapped", ("attn_metadata", "output")),
    *_members(
        "layers", f"{_LAYERS}.mla_attention:MLAAttention", "absorbs queries and expands latents", "impl", "kv_cache_dtype",
        "qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "W_UK_T", "W_UV",
    ),
    Need("layers", f"{_BACKENDS}.mla.cpu_mla:CPUMLAImpl", "is told by its name"),
    *_members("worker", "vllm.v1.worker.utils:AttentionGroup", "leads a layer to its pages", "layer_names", "kv_cache_spec"),
    # The V1 model runner.
    *_members(
        "v1 runner", f"{_V1}:GPUModelRunner", "has the batch on the host", "input_batch", "query_start_loc",
        "optimistic_seq_lens_cpu", "attn_groups", "cudagraph_dispatcher",
    ),
    *_members("v1 runner", "vllm.v1.worker.gpu_input_batch:InputBatch", "has the order of rows", "req_ids", "block_table"),
    Need("v1 runner", "vllm.v1.utils:CpuGpuBuffer.np", "is the host's side of query_start_loc"),
    Need("v1 runner", "vllm.v1.worker.block_table:MultiGroupBlockTable.__getitem__", "has one table for each cache group"),
    Need("v1 runner", "vllm.v1.worker.block_table:BlockTable.get_device_tensor", "has the pages", ("num_reqs",)),
    Need("v1 runner", "vllm.v1.cudagraph_dispatcher:CudagraphDispatcher.dispatch", "is wrapped: excludes FULL graphs",
         ("valid_modes", "invalid_modes")),
    Need("v1 runner", "vllm.v1.worker.dp_utils:coordinate_batch_across_dp", "agrees on the mode of all data parallel ranks",
         ("cudagraph_mode",)),
    Need("v1 runner", "vllm.v1.worker.dp_utils:_post_process_cudagraph_mode", "takes the smallest mode of all ranks"),
    # The V2 model runner.
    *_members("v2 runner", f"{_V2}:GPUModelRunner", "runs the batch", "attn_groups", "block_tables", "cudagraph_manager"),
    Need("v2 runner", f"{_V2}:GPUModelRunner.prepare_attn", "is wrapped: has the batch and its pages", ("input_batch",)),
    *_members(
        "v2 runner", "vllm.v1.worker.gpu.input_batch:InputBatch", "has the order of rows", "req_ids", "num_reqs",
        "query_start_loc_np", "num_computed_tokens_np",
    ),
    Need("v2 runner", f"{_V2}:dispatch_cg_and_sync_dp", "is replaced in the module that calls it"),
    Need("v2 runner", "vllm.v1.worker.gpu.dp_utils:dispatch_cg_and_sync_dp", "agrees on the graph of all data parallel ranks",
         ("cudagraph_manager", "num_reqs", "num_tokens", "uniform_token_count", "max_query_len", "uniform_decode")),
    Need("v2 runner", "vllm.v1.worker.gpu.cudagraph_utils:ModelCudaGraphManager.dispatch", "is wrapped: excludes FULL graphs",
         ("num_reqs", "num_tokens", "uniform_token_count", "max_query_len")),
    *_members(
        "v2 runner", "vllm.v1.worker.gpu.cudagraph_utils:BatchExecutionDescriptor", "is what dispatch returns", "cg_mode",
        "num_tokens", "num_reqs",
    ),
)


def runner_needs(part: Literal["v1 runner", "v2 runner"]) -> tuple[str, ...]:
    """Return the attributes that a model runner must have for its adapter."""
    return tuple(need.member for need in CONTRACT if need.part == part and ":GPUModelRunner." in need.symbol)
