"""The parts of the benchmarks that need no engine: turns, shares, prompts, the peers' arithmetic, the report, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

from headwatch.bench import overhead_report, peers_report
from headwatch.bench.arms import ALL, DEFAULT, PLAIN, RATE_ZERO, Everyone, request_id, settings_of, takes
from headwatch.bench.conditions import Conditions
from headwatch.bench.cores import engine_cores
from headwatch.bench.figures import decode_figures, itl_ratio, throughput_ratio
from headwatch.bench.load import Bystanders
from headwatch.bench.machine import Machine, describe
from headwatch.bench.measure import DecodeCycle
from headwatch.bench.overhead_report import judge
from headwatch.bench.peer_client import Client
from headwatch.bench.peer_messages import Flush, Follow, Forget, Shape, Step
from headwatch.bench.peer_summary import PromptSpans, from_queries, from_weights
from headwatch.bench.peers_report import ATTENTIONS, COPY, PeerCycle, report_of
from headwatch.bench.prompts import PromptMaker
from headwatch.bench.schedule import cycle
from headwatch.bench.statistics import Interval
from headwatch.capture.kernels.oracle import summarise, weights
from headwatch.capture.layers.attention import AttentionRule, RowSpans
from headwatch.cli.bench import BENCHMARKS
from headwatch.cli.main import main
from headwatch.config import CaptureConfig
from headwatch.sampling import is_sampled

from .chat_tokenizer import chat_tokenizer
from .tensors import assert_close

ARMS = ["a", "b", "c", "d"]


def test_in_a_cycle_every_arm_has_the_same_mean_place():
    for number in range(20):
        places = {arm: [i for i, turn in enumerate(cycle(ARMS, number)) if turn == arm] for arm in ARMS}
        assert {sum(found) for found in places.values()} == {2 * len(ARMS) - 1}


def test_a_steady_drift_cancels_in_a_cycle():
    seconds = dict.fromkeys(ARMS, 0.0)
    for place, arm in enumerate(cycle(ARMS, 3)):
        seconds[arm] += 1.0 + 0.01 * place
    assert len(set(np.round(list(seconds.values()), 12))) == 1


def test_orders_differ_between_cycles_and_not_between_runs():
    assert cycle(ARMS, 1) == cycle(ARMS, 1)
    assert len({tuple(cycle(ARMS, number)) for number in range(30)}) > 5


def test_default_means_the_product_s_defaults():
    assert settings_of(DEFAULT) == CaptureConfig()


@pytest.mark.parametrize(("arm", "share"), [(RATE_ZERO, 0.0), (DEFAULT, CaptureConfig().sample_rate), (ALL, 1.0)])
def test_each_arm_samples_its_exact_share_and_the_front_end_s_hash_agrees(arm: str, share: float):
    wanted = [takes(arm, number) for number in range(200)]
    assert sum(wanted) == 200 * share
    ids = [request_id(arm, number) for number in range(40)]
    assert [is_sampled(name, share) for name in ids] == wanted[:40]
    assert len(set(ids)) == 40


def test_requests_are_made_known_to_the_arms_that_sample_them():
    seen: dict[str, list[int]] = {ALL: [], DEFAULT: [], RATE_ZERO: []}

    @dataclass
    class Scheduled:
        scheduled_new_reqs: list[int]

    def capture(arm: str) -> SimpleNamespace:
        return SimpleNamespace(
            begin_step=lambda scheduled: seen[arm].extend(scheduled.scheduled_new_reqs), end_step=lambda: None
        )

    everyone = Everyone({arm: capture(arm) for arm in seen})  # type: ignore[misc]
    for first in range(0, 40, 4):
        everyone.begin_step(Scheduled(list(range(first, first + 4))))
        everyone.end_step()
    assert seen[ALL] == list(range(40))
    assert len(seen[DEFAULT]) == 4
    assert seen[RATE_ZERO] == []


def test_prompts_are_as_long_as_asked_and_share_no_beginning():
    maker = PromptMaker(chat_tokenizer(), 600)
    prompts = maker.batch(4, 0) + maker.batch(4, 1)
    assert all(590 <= len(prompt.token_ids) <= 600 for prompt in prompts)
    beginnings = Counter(prompt.token_ids[:24] for prompt in prompts)
    assert max(beginnings.values()) == 1


def test_the_same_text_number_gives_the_same_documents_under_another_number():
    maker = PromptMaker(chat_tokenizer(), 900)
    first, second = maker.batch(1, 5)[0], maker.batch(1, 5)[0]
    assert first.token_ids != second.token_ids
    assert first.field == second.field
    assert len(json.loads(first.field["headwatch"])["documents"]) >= 2
    assert json.loads(maker.batch(1, 5, always=True)[0].field["headwatch"])["capture"] == "always"


LAYERS, KV, GROUP, DIM = 3, 2, 2, 8
SPANS = PromptSpans((5, 30, 41, 45), (False, True, True, False))
ROWS = [45, 46, 50, 60]
SCALE = DIM**-0.5


def random_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries [L, KV, G, R, D] and keys [L, KV, n, D]."""
    random = torch.Generator().manual_seed(3)
    queries = 3 * torch.randn(LAYERS, KV, GROUP, len(ROWS), DIM, generator=random)
    return queries, torch.randn(LAYERS, KV, ROWS[-1] + 1, DIM, generator=random)


def by_oracle(queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return features [R, L, H, 6], masses [R, S, L, H], and each layer's weights [R, H, n]."""
    spans = RowSpans(np.array(SPANS.ends, np.int32), np.array(SPANS.documents, np.uint8))
    rule, positions = AttentionRule(SCALE), torch.tensor(ROWS)
    features, masses, attentions = [], [], []
    for layer in range(LAYERS):
        rows = queries[layer].permute(2, 0, 1, 3).reshape(len(ROWS), KV * GROUP, DIM)
        attention, sink = weights(rows, keys[layer].permute(1, 0, 2), positions, rule)
        found, mass = summarise(attention, sink, positions, spans, rule)
        features.append(found)
        masses.append(mass)
        attentions.append(attention)
    return torch.stack(features, 1), torch.stack(masses, 2), attentions


def test_a_peer_s_client_computes_the_numbers_of_the_oracle():
    """The peers do the same work: a faster peer that computed something else would prove nothing."""
    queries, keys = random_rows()
    features, masses, attentions = by_oracle(queries, keys)
    found = from_queries(queries, keys, ROWS, SPANS, SCALE)
    assert_close(found.features, features, atol=1e-5, rtol=1e-4)
    assert_close(found.span_mass, masses, atol=1e-5, rtol=1e-4)
    by_weights = from_weights(torch.stack([layer.permute(1, 0, 2) for layer in attentions]), ROWS, SPANS)
    assert_close(by_weights.features, features, atol=1e-5, rtol=1e-4)
    assert_close(by_weights.span_mass, masses, atol=1e-5, rtol=1e-4)


def test_the_client_follows_a_request_step_by_step():
    """Keys of the prompt at once, then one token a step; rows that arrive together are summarised together."""
    queries, keys = random_rows()
    features, _, _ = by_oracle(queries, keys)
    client = Client()
    client.take(Shape(LAYERS, KV, GROUP, DIM, SCALE), [])
    start = ROWS[0]
    prompt = keys[:, :, :start].contiguous().numpy().tobytes()
    client.take(Follow("r", start, list(SPANS.ends), list(SPANS.documents)), [prompt])
    for position in range(start, ROWS[-1] + 1):
        new = keys[:, None, :, position].contiguous().numpy().tobytes()
        tensors = [new]
        if position in ROWS:
            tensors.append(queries[:, None, :, :, ROWS.index(position)].contiguous().numpy().tobytes())
        client.take(Step(["r"], position in ROWS), tensors)
    done = client.take(Flush(), [])
    assert done is not None
    assert done.rows == len(ROWS)
    assert done.entropy == pytest.approx(float(features[-1, ..., 0].mean()), abs=1e-5)
    client.take(Forget(), [])
    assert client.waiting() == 0


def cycles(slower: float, count: int = 8, batch: int = 4) -> list[DecodeCycle]:
    random = np.random.default_rng(5)
    made = []
    for _ in range(count):
        machine = random.uniform(0.5, 2.0)  # what both arms share
        made.append(DecodeCycle(batch, {
            PLAIN: machine * random.normal(0.05, 1e-4, 16), DEFAULT: machine * slower * random.normal(0.05, 1e-4, 16)
        }))  # fmt: skip
    return made


def test_an_arm_that_is_a_tenth_slower_is_seen_on_a_machine_that_halves_its_speed():
    found = throughput_ratio(cycles(1.1), DEFAULT)
    assert found.value == pytest.approx(1 / 1.1, abs=0.005)
    assert found.high < 0.92
    assert itl_ratio(cycles(1.1, count=1), DEFAULT, 50).value == pytest.approx(1.1, abs=0.01)


def test_figures_are_tokens_and_milliseconds():
    plain, default = decode_figures(cycles(2.0, count=1), [PLAIN, DEFAULT])
    assert plain.tokens_per_second == pytest.approx(2 * default.tokens_per_second, rel=0.01)
    assert default.itl_p50_ms == pytest.approx(2 * plain.itl_p50_ms, rel=0.01)
    assert plain.throughput_ratio == Interval(1.0, 1.0, 1.0, 1)


def intervals(**changed: Interval) -> dict[str, Interval]:
    good = Interval(1.0, 0.98, 1.02, 9)
    names = ("throughput_ratio_default", "throughput_ratio_rate0", "throughput_ratio_all", "throughput_ratio_all_b4",
             "p99_itl_ratio_default", "p99_itl_ratio_plain_again")  # fmt: skip
    return dict.fromkeys(names, good) | changed


def test_the_bars_are_those_that_were_promised():
    bars, passed = judge(intervals(), 60.0)
    assert passed
    assert set(bars) == {"throughput_ratio_default", "throughput_ratio_rate0", "throughput_ratio_all_b4",
                         "worker_memory_mib", "p99_itl_ratio_default"} == set(overhead_report.BOUNDS)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("throughput_ratio_default", 0.98), ("throughput_ratio_rate0", 0.98), ("throughput_ratio_all_b4", 0.84),
     ("p99_itl_ratio_default", 1.06)],
)  # fmt: skip
def test_each_bar_can_be_missed(name: str, value: float):
    assert not judge(intervals(**{name: Interval(value, value, value, 9)}), 60.0)[1]


def test_memory_can_be_too_much_and_late_tokens_may_be_noise():
    assert not judge(intervals(), 193.0)[1]
    late, noise = Interval(1.2, 1.0, 1.4, 9), Interval(1.0, 0.7, 1.3, 9)
    assert judge(intervals(p99_itl_ratio_default=late, p99_itl_ratio_plain_again=noise), 60.0)[1]


MACHINE = Machine("cpu", 2, 8.0, ["avx2"], "Linux 6", "3.11", {})


def peers(copy: float, attentions: float) -> peers_report.PeersReport:
    speeds = {PLAIN: 20.0, ALL: 19.0, "all_tenth": 19.9, COPY: copy, "copy_tenth": copy, "transformers": 16.0,
              ATTENTIONS: attentions, "attentions_tenth": attentions}  # fmt: skip
    conditions = Conditions("m", 635, "cpu", 1, 1, MACHINE, 0.0, quick=True, seconds=1.0)
    return report_of([PeerCycle(batch, speeds) for batch in (1, 4) for _ in range(3)], conditions)


def test_headwatch_must_be_ahead_of_each_peer_at_each_batch_size():
    report = peers(copy=15.0, attentions=10.0)
    assert report.passed
    assert report.bars["ahead_of_copy_all_b1"] == pytest.approx(19 / 15, abs=1e-4)
    assert report.intervals["ahead_of_attentions_all_relative_b4"].value == pytest.approx((19 / 20) / (10 / 16), abs=1e-4)
    assert not peers(copy=19.5, attentions=10.0).passed
    assert not peers(copy=15.0, attentions=19.5).passed
    assert "behind: ahead_of_copy_all_b1" in peers_report.render(peers(copy=19.5, attentions=10.0))


def test_the_machine_is_described_without_its_name():
    machine = describe()
    assert machine.cores >= 1
    assert machine.versions["numpy"] == np.__version__
    assert os.uname().nodename not in msgspec.json.encode(machine).decode()


def test_what_others_use_is_told_from_what_we_use():
    """A busy loop of our own child is ours; one of a stranger is not."""
    loop = "import time; end = time.time() + 1.5\nwhile time.time() < end: pass"
    bystanders = Bystanders()
    subprocess.run([sys.executable, "-c", loop], check=True)
    ours = bystanders.share()
    stranger = Bystanders()
    shell = f"setsid {sys.executable} -c '{loop}' >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", shell], check=True)
    time.sleep(1.5)
    cores = os.cpu_count() or 1
    assert stranger.share() > 0.5 / cores
    assert ours < stranger.share() + 0.5 / cores


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_each_benchmark_takes_quick_and_json(benchmark: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", benchmark, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--quick" in shown
    assert "--json" in shown


def test_triage_replays_recordings_unless_the_full_run_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "triage", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "replay recordings in minutes, which is the default" in shown
    assert "--live the full run: every scenario on the real model and server" in shown
    for quick in ([], ["--quick"]):
        assert main(["bench", "triage", *quick, "--recordings", str(tmp_path)]) == 1
        assert f"{tmp_path} holds no recordings" in capsys.readouterr().err
    for full in (["--live"], ["--record", str(tmp_path)]):
        assert main(["bench", "triage", "--quick", *full]) == 1
        assert "--quick judges recordings; leave it out to record anew" in capsys.readouterr().err


def test_a_folder_without_a_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "overhead", "--model", str(tmp_path), "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"--model {tmp_path}: there is no config.json in it" in shown.err


def test_a_benchmark_must_be_named(capsys: pytest.CaptureFixture[str]):
    assert main(["bench"]) == 2
    assert "capture,overhead,peers" in capsys.readouterr().err


def test_peers_share_the_engines_cores_and_the_others_come_back():
    before = os.sched_getaffinity(0)
    with engine_cores() as cores:
        assert cores == len(os.sched_getaffinity(0)) == max(1, len(before) - 1)
    with engine_cores(spread=True) as cores:
        assert cores == len(os.sched_getaffinity(0)) == len(before)
    assert os.sched_getaffinity(0) == before
