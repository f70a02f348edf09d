"""Special modes of real vLLM: what is captured in them is what the same tokens give in a plain run.

Every row is held against a row of the same tokens that was computed anew, as part of a prompt, without any cache
(``replay``): a wrong request, position, page, head or layer, or a row of a rejected token, moves it by far more than the
bound.  Several modes share one engine, because an engine takes longer to start than to run them all.
"""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.wire import columns

from . import joined_rows, tiny_models

BOUND = 1e-5
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
TWO_PROCESSES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
SMALL_CACHE = {"block_size": 32, "num_gpu_blocks_override": 20, "max_model_len": 512, "disable_log_stats": False}
LOOKUP = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
EVERY_ROW = {"prefill_stride": 1}
SHARED = ["plain", "prefix", "samples", "structured", "preemption", "aborted", "left_behind"]

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.build(tmp_path_factory.mktemp("gqa"), "gqa")


@pytest.fixture(scope="module")
def engine(tmp_path_factory, model):
    """Return a function that runs one engine; each name once a session."""
    runs = {}

    def run(name, **spec):
        if name not in runs:
            runs[name] = joined_rows.run_engine(tmp_path_factory.mktemp(name), model, **spec)
        return runs[name]

    return run


@pytest.fixture(scope="module")
def v1(engine):
    """Everything that one V1 engine of a single worker can do, with a cache that is too small."""
    return engine(
        "v1", scenarios=[*SHARED, "adapter", "replay"], environment=IN_PROCESS, capture=EVERY_ROW,
        engine={**SMALL_CACHE, "enable_lora": True, "max_lora_rank": 8, "max_loras": 1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def v2(engine):
    """The same on the V2 runner, whose Triton kernels are interpreted."""
    return engine(
        "v2", scenarios=[*SHARED, "replay"], environment=IN_PROCESS, capture=EVERY_ROW, runner="v2", engine=SMALL_CACHE
    )


@pytest.fixture(scope="module")
def speculating(engine):
    return engine(
        "speculating", scenarios=["speculation", "replay", "weights_replaced", "sleep"], environment=IN_PROCESS,
        capture=EVERY_ROW, engine={"speculative_config": LOOKUP, "disable_log_stats": False},
    )  # fmt: skip


@pytest.fixture
def run(request):
    """The run that a parameter names."""
    return request.getfixturevalue(request.param)


BOTH = pytest.mark.parametrize("run", ["v1", "v2"], indirect=True)


def assert_as_replayed(run, scenario, *, prompt_rows=True):
    """Every row of *scenario* equals the replayed row of the same tokens; return how many generated rows there were."""
    reference, generated = run.by_tokens("replay"), 0
    found = run.by_tokens(scenario)
    assert found
    for key, rows in found.items():
        assert key in reference, f"{scenario}: {len(key[1])} tokens were never replayed"
        assert joined_rows.largest_difference(rows, reference[key][0]) <= BOUND
        generated += sum(row.position >= row.context.prompt_tokens for row in rows)
    if prompt_rows:
        assert any(row.position < row.context.prompt_tokens for rows in found.values() for row in rows)
    return generated


@BOTH
def test_the_worker_says_which_runner_it_has(run, request):
    name = request.node.callspec.params["run"]
    (status,) = run.statuses
    assert (status.runner, status.up, status.reason, status.refused_layers, status.errors) == (name, True, "", {}, {})


@BOTH
def test_batches_with_chunked_prefills(run):
    assert assert_as_replayed(run, "plain") == 6 * 11


@BOTH
def test_rows_of_a_prompt_that_comes_from_the_prefix_cache(run):
    """Cached positions are not computed, so they have no rows; those that are read the cached keys of another request."""
    cached = [item["cached"] for item in run.shown("prefix")]
    assert cached[0] == 0
    assert min(cached[1:]) >= 64
    assert assert_as_replayed(run, "prefix") == 3 * 11
    starts = {}
    for (engine_id, position), row in run.rows.items():
        if row.context.request_id in [item["id"] for item in run.shown("prefix")]:
            starts[engine_id] = min(position, starts.get(engine_id, position))
    assert sorted(starts.values()) == sorted(cached)


@BOTH
def test_each_sample_of_a_request_with_several_is_a_request_of_its_own(run):
    assert assert_as_replayed(run, "samples") == 4 * 11
    (several, _) = run.shown("samples")
    ids = {engine_id for engine_id, _ in run.rows if run.rows[engine_id, _].context.request_id == several["id"]}
    assert len(ids) == 3
    assert len({tuple(tokens) for tokens in several["tokens"]}) > 1, "the samples differ, so a mix-up would show"


@BOTH
def test_tokens_that_a_grammar_chooses(run):
    (chosen, _) = run.shown("structured")
    assert chosen["tokens"][0]
    assert assert_as_replayed(run, "structured") >= 11


@BOTH
def test_a_preempted_request_sends_every_position_once(run):
    """``rows`` fails on a part that comes twice; what was computed before and after the preemption fits together."""
    assert run.outputs["preemption"]["preemptions"] >= 1
    assert assert_as_replayed(run, "preemption") == 6 * 89


@BOTH
def test_an_aborted_request_leaves_its_rows_and_nothing_behind(run):
    assert run.outputs["aborted"]["tokens"] == 4
    assert assert_as_replayed(run, "aborted") >= 9 + 3
    assert run.outputs["left_behind"]["requests"] <= 1, "only the request that was the last step's"
    finished = {engine_id for frame in run.frames for engine_id in frame.finished}
    contexts = {row.context.engine_id for row in run.rows.values()}
    last_step = {row.context.engine_id for row in run.rows.values() if run.sequence(row) and run.sequence(row)[0] == "replay"}
    assert contexts - finished <= last_step, "whoever has rows is told as ended; only the last step's are still open"


@BOTH
def test_counts_reconcile(run):
    counters = run.statuses[0].counters
    assert counters["rows_planned"] == counters["rows_sent"] + counters["rows_dropped"] + counters["rows_refused"]
    assert counters["rows_planned"] == len(run.rows)


def test_both_runners_come_to_the_same_rows(v1, v2):
    first, second = v1.by_tokens("plain"), v2.by_tokens("plain")
    assert first.keys() == second.keys()
    assert max(joined_rows.largest_difference(second[key], first[key][0]) for key in first) <= BOUND


def test_an_adapter_is_part_of_the_stratum_and_moves_attention(v1):
    assert assert_as_replayed(v1, "adapter") == 2 * 11
    tuned, plain = (
        {row.position: row for row in v1.rows.values() if row.context.request_id == item["id"]} for item in v1.shown("adapter")
    )
    assert {row.adapter for row in tuned.values()} == {"tuned"}
    assert {row.adapter for row in plain.values()} == {""}
    assert joined_rows.largest_difference([tuned[30]], plain[30]) > 100 * BOUND, "the adapter moves attention"


def test_speculation_leaves_drafts_out_and_keeps_what_stands(speculating):
    """Tokens looked up in the prompt: some accepted, some rejected, and no row of either; the rows between are exact."""
    counts = speculating.outputs["speculation"]["counts"]
    accepted, drafted = (counts[f"vllm:spec_decode_num_{name}_tokens"] for name in ("accepted", "draft"))
    assert 0 < accepted < drafted
    requests = speculating.shown("speculation")
    generated = sum(len(item["tokens"][0]) - 1 for item in requests)
    assert assert_as_replayed(speculating, "speculation") == generated - accepted


def test_weights_that_are_loaded_anew_are_another_revision(speculating):
    outcome = speculating.outputs["weights_replaced"]
    assert outcome["trust"] == [0, 0, 0]
    assert outcome["revision"] == "+reload1"
    revisions = {
        context.request_id: frame.worker.revision for frame in speculating.frames for context in frame.requests
    }
    before, after = outcome["outputs"]
    assert (revisions[before["id"]], revisions[after["id"]]) == ("", "+reload1")
    assert before["tokens"] == after["tokens"]


def test_an_engine_that_sleeps_says_so(speculating):
    outcome = speculating.outputs["sleep"]
    assert outcome["asleep"] == [False, "asleep: the engine sleeps until it is woken up"]
    assert outcome["awake"] == [True, ""]


def test_a_pooling_model_is_not_captured_and_says_why(engine):
    run = engine(
        "pooling", scenarios=["embedding"], environment=IN_PROCESS, engine={"runner": "pooling", "convert": "embed"}
    )
    assert run.outputs["embedding"]["dimensions"] == [128, 128]
    (status,) = run.statuses
    assert (status.up, run.frames) == (False, [])
    assert status.reason.startswith("pooling: ")


@pytest.fixture(scope="module")
def tensor(engine):
    """Two processes, each with half of the heads, and one key-value head of two."""
    return engine(
        "tensor", scenarios=["plain"], environment=TWO_PROCESSES, workers=2, engine={"tensor_parallel_size": 2}
    )


@pytest.fixture(scope="module")
def single(engine):
    return engine("single", scenarios=["plain"], environment=IN_PROCESS)


def assert_as_single(run, single):
    """The ranks' parts put together are the rows of the single worker, and the sidecar makes the same of them."""
    assert run.shown("plain") == single.shown("plain"), "the same tokens"
    by_name = {(row.context.request_id, row.position): row for row in single.rows.values()}
    joined = {(row.context.request_id, row.position): row for row in run.rows.values()}
    assert joined.keys() == by_name.keys()
    for key, row in joined.items():
        np.testing.assert_allclose(row.features, by_name[key].features, atol=BOUND)
        np.testing.assert_allclose(row.span_mass, by_name[key].span_mass, atol=BOUND)
    (windows, records), (expected_windows, expected) = aggregated(run), aggregated(single)
    assert sum(int(window.rows.sum()) for window in windows) == sum(int(window.rows.sum()) for window in expected_windows)
    assert {window.worker.instance for window in windows} == {window.worker.instance for window in expected_windows}
    assert len(records) == len(expected) == 6
    ordered = sorted(records, key=lambda record: record.context.request_id)
    for record, other in zip(ordered, sorted(expected, key=lambda record: record.context.request_id), strict=True):
        assert (record.rows_prefill, record.rows_decode) == (other.rows_prefill, other.rows_decode)
        assert record.rows_decode == 11
        np.testing.assert_allclose(record.head_means, other.head_means, atol=BOUND)


def aggregated(run):
    """Return the windows and the requests that the sidecar makes of a run's frames."""
    aggregator = Aggregator(WindowConfig())
    for frame in run.frames:
        aggregator.add(frame, columns.view(frame))
    return aggregator.collect(0, everything=True)


def test_tensor_parallel_ranks_together_are_the_whole(tensor, single):
    identities = {(status.worker.rank, status.worker.ranks, status.worker.heads) for status in tensor.statuses}
    assert identities == {(0, 2, 4), (1, 2, 4)}
    assert {(frame.worker.rank, frame.head_offset, frame.heads) for frame in tensor.frames if frame.layers} == {
        (0, 0, 2), (1, 2, 2)
    }
    assert_as_single(tensor, single)


@pytest.mark.long
def test_key_value_heads_that_both_ranks_hold(engine, tmp_path_factory):
    """One key-value head and two ranks: vLLM gives it to both, and each has its own query heads of it."""
    folder = tmp_path_factory.mktemp("shared-heads")
    small = tiny_models.build(folder / "model", "gqa", kv_heads=1)
    runs = [
        joined_rows.run_engine(tmp_path_factory.mktemp("kv"), small, scenarios=["plain"], **spec)
        for spec in ({"environment": IN_PROCESS},
                     {"environment": TWO_PROCESSES, "workers": 2, "engine": {"tensor_parallel_size": 2}})
    ]
    assert_as_single(runs[1], runs[0])


@pytest.mark.long
def test_pipeline_parallel_stages_together_are_the_whole(engine, single):
    """Three layers on two stages.  vLLM's CPU worker warms nothing up in eager mode, and then lacks what stages hand on."""
    staged = engine(
        "pipeline", scenarios=["plain"], workers=2, environment={**TWO_PROCESSES, "VLLM_CPU_KVCACHE_SPACE": None},
        engine={"pipeline_parallel_size": 2, "gpu_memory_utilization": 0.12, "enforce_eager": False,
                "compilation_config": {"mode": 2, "backend": "eager"}},
    )  # fmt: skip
    layers = {frame.worker.rank: tuple(frame.layers) for frame in staged.frames if frame.layers}
    assert sorted(layer for stage in layers.values() for layer in stage) == [0, 1, 2]
    assert len(layers) == 2
    assert {status.worker.layers for status in staged.statuses} == {3}
    assert_as_single(staged, single)


@pytest.mark.long
def test_data_parallel_replicas_are_two_engines_with_the_same_rows(engine, single):
    replicas = engine("replicas", workers=2, environment=TWO_PROCESSES, engine={"data_parallel_size": 2})
    assert {status.worker.instance for status in replicas.statuses} == {"modes", "modes-dp1"}
    by_name = {(row.context.request_id, row.position): row for row in single.rows.values()}
    for rank, instance in enumerate(("modes", "modes-dp1")):
        own = {
            (row.context.request_id.partition("-")[2], row.position): row
            for row in replicas.rows.values() if row.context.request_id.startswith(f"{rank}-")
        }
        assert own.keys() == by_name.keys()
        for key, row in own.items():
            np.testing.assert_allclose(row.features, by_name[key].features, atol=BOUND)
        assert {frame.worker.instance for frame in replicas.frames for context in frame.requests
                if context.request_id.startswith(f"{rank}-")} == {instance}
    windows, records = aggregated(replicas)
    assert {window.worker.instance for window in windows} == {"modes", "modes-dp1"}
    assert len(records) == 12


@pytest.mark.long
def test_speculation_on_the_v2_runner(engine):
    run = engine(
        "speculating-v2", scenarios=["speculation", "replay"], environment=IN_PROCESS, capture=EVERY_ROW, runner="v2",
        engine={"speculative_config": LOOKUP, "disable_log_stats": False},
    )  # fmt: skip
    accepted = run.outputs["speculation"]["counts"]["vllm:spec_decode_num_accepted_tokens"]
    generated = sum(len(item["tokens"][0]) - 1 for item in run.shown("speculation"))
    assert accepted > 0
    assert assert_as_replayed(run, "speculation") == generated - accepted
