"""Runs one engine in a process of its own and keeps every frame that its workers send: python mode_engine.py SPEC FOLDER.

SPEC is JSON: ``model``, ``engine`` (arguments of ``LLM``), ``environment``, ``workers`` (how many report), ``scenarios``
(names of functions here).  FOLDER gets ``frames`` (msgpack list of encoded summary frames, in order of arrival),
``statuses`` (the last status of each worker) and ``outputs.json`` (what each scenario returned).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import msgspec

from headwatch.client import request_field
from headwatch.config_file import load
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.wire import codec

CONFIGURATION = """
[capture]
sample_rate = 1.0
step_stride = {step_stride}
prefill_stride = {prefill_stride}
max_rows_per_step = 4096
budget_share = 1.0
instance = "{instance}"

[wire]
endpoint = "ipc://{folder}/frames.sock"
queue_frames = 4096
status_seconds = 0.1
"""
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
ARGUMENTS = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "max_num_batched_tokens": 128, "max_num_seqs": 8,
    "seed": 0, "disable_log_stats": True,
}  # fmt: skip
ARRIVAL_SECONDS = 30.0
VOCABULARY = (
    "harbour", "ferry", "winter", "keeper", "lighthouse", "map", "coast", "ice", "pilot", "grain", "ship", "quay"
)  # fmt: skip


class Recorder:
    """The sidecar's end of the wire; it keeps what arrives."""

    def __init__(self, wire):
        self.frames, self.registry, self.lock = [], WorkerRegistry(), threading.Lock()
        self.receiver = Receiver(wire, self.registry, self.consume, whole=True)
        self.receiver.start()

    def consume(self, batch, _columns):
        with self.lock:
            self.frames.append(codec.encode(batch))

    def await_all(self, workers):
        """Wait until everything that *workers* workers have sent by now is here."""
        after, deadline = time.time_ns(), time.monotonic() + ARRIVAL_SECONDS
        while time.monotonic() < deadline:
            arrived = [
                item for item in self.registry.health()
                if item.status.time_ns > after and item.frames_received >= item.status.sequence
            ]
            if len(arrived) >= workers:
                return
            time.sleep(0.05)
        raise SystemExit(f"of {workers} workers these reported: {[item.status for item in self.registry.health()]}")


def text_of(number, words=40):
    """Return a prompt of its own for each number, made of plain words."""
    return " ".join(VOCABULARY[(number * 7 + index * (3 + number % 5)) % len(VOCABULARY)] for index in range(words))


def parameters(**arguments):
    """Return greedy sampling parameters of a request that is captured."""
    from vllm import SamplingParams

    arguments = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **arguments}
    return SamplingParams(extra_args=dict(request_field(route="modes", capture="always")), **arguments)


def shown(outputs):
    """Return of each finished request its id, its prompt's length, its tokens and how much of the prompt was cached."""
    return [
        {
            "id": output.request_id,
            "prompt": list(output.prompt_token_ids),
            "tokens": [list(item.token_ids) for item in output.outputs],
            "cached": int(output.num_cached_tokens or 0),
        }
        for output in outputs
    ]


def plain(llm):
    """Six requests in one batch, the longer ones prefilled in chunks."""
    prompts = [text_of(number, 20 + 25 * number) for number in range(6)]
    return shown(llm.generate(prompts, parameters(), use_tqdm=False))


def prefix(llm):
    """The same long prompt twice, the second time mostly from the prefix cache, and one that shares its beginning."""
    first = llm.generate([text_of(20, 120)], parameters(), use_tqdm=False)
    return shown(first + llm.generate([text_of(20, 120), text_of(20, 110) + " and so on"], parameters(), use_tqdm=False))


def samples(llm):
    """Three samples of one prompt, beside another request."""
    several = parameters(n=3, temperature=1.0)
    return shown(llm.generate([text_of(30, 50), text_of(31, 30)], [several, parameters()], use_tqdm=False))


def structured(llm):
    """A request whose tokens a grammar chooses, beside a free one."""
    from vllm.sampling_params import StructuredOutputsParams

    chosen = parameters(structured_outputs=StructuredOutputsParams(regex="(ferry|coast) [0-9]{6}"), ignore_eos=False)
    return shown(llm.generate([text_of(40, 30), text_of(41, 30)], [chosen, parameters()], use_tqdm=False))


def preemption(llm):
    """More long requests than the cache holds: some are preempted, and computed again later."""
    prompts = [text_of(50 + number, 60 + 5 * number) for number in range(6)]
    before = preemptions(llm)
    outputs = llm.generate(prompts, parameters(max_tokens=90), use_tqdm=False)
    return {"outputs": shown(outputs), "preemptions": preemptions(llm) - before}


def preemptions(llm):
    """Return how many requests the scheduler has preempted so far."""
    return sum(int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def aborted(llm):
    """Two requests, of which one is aborted after its fourth token; return what the other came to."""
    from vllm import RequestOutput

    engine = llm.llm_engine
    engine.add_request("stays", text_of(60, 40), parameters(max_tokens=10))
    engine.add_request("leaves", text_of(61, 40), parameters(max_tokens=500))
    finished: list[RequestOutput] = []
    tokens = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.request_id == "leaves":
                tokens, partial = len(output.outputs[0].token_ids), output
                if tokens == 4:
                    engine.abort_request(["leaves"])
            elif output.finished:
                finished.append(output)
    return {"outputs": shown([*finished, partial]), "tokens": tokens}


def adapter(llm):
    """The same prompt with an adapter and without, one after the other.

    Not in one batch: vLLM 0.32's CPU kernels give rows of a prefill without an adapter some of the adapter beside them.
    """
    from vllm.lora.request import LoRARequest

    folder = save_adapter(Path(os.environ["HEADWATCH_CONFIG"]).parent / "adapter")
    ADAPTERS["tuned"] = LoRARequest("tuned", 1, str(folder))
    outputs = []
    for chosen in (ADAPTERS["tuned"], None):
        outputs += shown(llm.generate([text_of(90, 40)], parameters(), lora_request=chosen, use_tqdm=False))
    outputs[0]["adapter"] = "tuned"
    return outputs


def save_adapter(folder):
    """Write an adapter of rank 4 to the queries of each layer, large enough to move attention, and return its folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(4, 128, generator=generator) * 0.3
        weights[f"{name}.lora_B.weight"] = torch.randn(128, 4, generator=generator) * 0.3
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"],
    }))
    return folder


def embedding(llm):
    """A pooling model: two prompts become vectors."""
    outputs = llm.embed(["ferry", "coast"], use_tqdm=False)
    return {"outputs": [], "dimensions": [len(item.outputs.embedding) for item in outputs]}


def left_behind(llm):
    """Return what capture still holds of requests once they have all ended."""
    llm.generate(["end"], parameters(max_tokens=1), use_tqdm=False)  # a step in which the last ones are told as ended
    capture = attached(llm)
    return {"requests": len(capture.requests), "counters": dict(capture.status().counters)}


def replay(llm):
    """Run every sequence that was generated as a prompt, without the prefix cache, so that each row is computed anew."""
    outputs = []
    for name in ("", *ADAPTERS):
        sequences = [item["prompt"] + tokens for item in SHOWN if item.get("adapter", "") == name for tokens in item["tokens"]]
        prompts = [
            {"prompt_token_ids": tokens, "cache_salt": f"replay-{name}-{number}"} for number, tokens in enumerate(sequences)
        ]
        outputs += llm.generate(prompts, parameters(max_tokens=1), lora_request=ADAPTERS.get(name), use_tqdm=False)
    return shown(outputs)


def weights_replaced(llm):
    """Load the weights again in the running engine: what was proved before is void, and the revision is another."""
    before = llm.generate([text_of(70, 40)], parameters(), use_tqdm=False)
    llm.collective_rpc("reload_weights")
    trust = [item.trust.passed for item in attached(llm).layers.values()]
    llm.reset_prefix_cache()
    after = llm.generate([text_of(70, 40)], parameters(), use_tqdm=False)
    return {"outputs": shown(before + after), "trust": trust, "revision": attached(llm).identity.revision}


def sleep(llm):
    """Put the engine to sleep and wake it up; return what the status says in between and after."""
    llm.collective_rpc("sleep")
    asleep = attached(llm).status()
    llm.collective_rpc("wake_up")
    awake = attached(llm).status()
    llm.reset_prefix_cache()
    outputs = llm.generate([text_of(71, 40)], parameters(), use_tqdm=False)
    return {"outputs": shown(outputs), "asleep": [asleep.up, asleep.reason], "awake": [awake.up, awake.reason]}


def speculation(llm):
    """Prompts that repeat themselves, so that the tokens looked up in them are sometimes right."""
    prompts = [" ".join([text_of(80 + number, 6)] * 8) for number in range(4)]
    outputs = llm.generate(prompts, parameters(max_tokens=48), use_tqdm=False)
    counts = {
        metric.name: int(metric.value)
        for metric in llm.get_metrics() if "spec_decode" in metric.name and hasattr(metric, "value")
    }
    return {"outputs": shown(outputs), "counts": counts}


def attached(llm):
    """Return the capture of an engine in this process."""
    from headwatch.capture.plugin import current

    return current(llm.llm_engine.engine_core.engine_core.model_executor.driver_worker)


ADAPTERS = {}
"""LoRA requests by name."""
SHOWN = []
"""Everything that the scenarios have generated so far."""
SCENARIOS = {
    function.__name__: function
    for function in (
        plain, prefix, samples, structured, preemption, aborted, adapter, left_behind, replay, weights_replaced, sleep,
        speculation, embedding,
    )
}


async def serve_replicas(spec):
    """Send the prompts of ``plain`` to each of the data parallel replicas of *spec*, by name, all at once."""
    import asyncio

    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=spec["model"], **{**ARGUMENTS, **spec["engine"]}))

    async def one(number, rank):
        last = None
        async for output in engine.generate(
            text_of(number, 20 + 25 * number), parameters(), f"{rank}-{number}", data_parallel_rank=rank
        ):
            last = output
        return last

    try:
        jobs = [one(number, rank) for rank in range(spec["engine"]["data_parallel_size"]) for number in range(6)]
        return shown(await asyncio.gather(*jobs)), engine
    except BaseException:
        engine.shutdown()
        raise


def start(spec):
    """Return the engine of *spec*."""
    if spec.get("runner") == "v2":
        sys.path.insert(0, str(Path(__file__).parent))
        import v2_on_cpu  # noqa: F401 - works by being imported
    from vllm import LLM

    return LLM(model=spec["model"], **{**ARGUMENTS, **spec.get("engine", {})})


def run(spec, recorder):
    """Return what each scenario of *spec* came to, in one engine."""
    results = {}
    llm = start(spec)
    for name in spec["scenarios"]:
        results[name] = SCENARIOS[name](llm)
        SHOWN.extend(results[name] if isinstance(results[name], list) else results[name].get("outputs", []))
    recorder.await_all(spec.get("workers", 1))
    llm.llm_engine.engine_core.shutdown()
    return results


def run_replicas(spec, recorder):
    """Return what the replicas of *spec* came to."""
    import asyncio

    async def serve():
        outputs, engine = await serve_replicas(spec)
        await asyncio.to_thread(recorder.await_all, spec["workers"])
        engine.shutdown()
        return {"plain": outputs}

    return asyncio.run(serve())


def main():
    spec, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    output = sys.stdout
    sys.stdout = sys.stderr
    path = folder / "headwatch.toml"
    path.write_text(CONFIGURATION.format(**{
        "folder": folder, "step_stride": 1, "prefill_stride": 3, "instance": "modes", **spec.get("capture", {}),
    }))
    for name in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        del os.environ[name]
    for name, value in {**DEFAULTS, "HEADWATCH_CONFIG": str(path), **spec.get("environment", {})}.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    recorder = Recorder(load(path=str(path), environ={}).config.wire)
    try:
        results = run_replicas(spec, recorder) if "data_parallel_size" in spec.get("engine", {}) else run(spec, recorder)
    finally:
        recorder.receiver.stop()
    (folder / "frames").write_bytes(msgspec.msgpack.encode(recorder.frames))
    (folder / "statuses").write_bytes(msgspec.msgpack.encode([codec.encode(i.status) for i in recorder.registry.health()]))
    (folder / "outputs.json").write_text(json.dumps(results))
    output.write("done\n")


if __name__ == "__main__":
    main()
