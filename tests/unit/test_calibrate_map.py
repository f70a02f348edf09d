"""From what probes gave to the head map: which heads are named, how many, and always the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.head_map import HeadMap, encode_head_map, load_head_map
from headwatch.calibrate.measure import NeedleMasses, Side
from headwatch.calibrate.report import render, summarise
from headwatch.calibrate.run import Measured, Settings, head_map_of
from headwatch.calibrate.select import choose_heads, head_counts
from headwatch.calibrate.weights import weights_sha256
from headwatch.errors import CommandError
from headwatch.model import StatusFrame, WorkerIdentity

LAYERS, HEADS, QUESTIONS = 12, 10, 40
READERS = {(2, 1), (7, 8), (11, 0)}
INDUCTION, LOCAL, SINK = (3, 3), (4, 4), (5, 5)
STATUS = StatusFrame(
    WorkerIdentity("engine", 0, 1, "served", "", "float32", LAYERS, HEADS, "0.32.0"),
    0, 1, True, "", {}, {}, {}, 0.0, 0.0, 1.0, 1, "v1", "CPU",
)  # fmt: skip


def side(source: np.random.Generator, questions: int, *, right: bool) -> Side:
    """Requests whose readers look back more where the documents are right; every other head is noise."""
    lookback = source.normal(0.5, 0.1, (questions, LAYERS, HEADS))
    for place in READERS:
        lookback[:, *place] += 0.15 * right
    local, sink = (source.uniform(0.0, 0.4, (questions, LAYERS, HEADS)) for _ in range(2))
    local[:, *LOCAL] += 0.5
    sink[:, *SINK] += 0.5
    return Side(lookback, local, sink, np.full(questions, 300.0), source.normal(-1, 0.1, questions))


def measured(seed: int = 0) -> Measured:
    source = np.random.default_rng(seed)
    needle = source.uniform(0.0, 0.02, (20, LAYERS, HEADS))
    for place in READERS | {INDUCTION}:
        needle[:, *place] += 0.3
    induction = source.uniform(0.0, 0.1, (16, LAYERS, HEADS))
    induction[:, *INDUCTION] += 0.7
    calibration, held_out = (tuple(side(source, QUESTIONS, right=right) for right in (True, False)) for _ in range(2))
    return Measured(calibration, held_out, NeedleMasses(needle, 0.04, 18), induction, STATUS)


def mapped(found: Measured, seed: int = 0) -> HeadMap:
    return head_map_of(found, Settings(Path("model"), "served", seed=seed), "ab" * 32)


@pytest.fixture(scope="module")
def head_map() -> HeadMap:
    return mapped(measured())


def test_planted_heads_are_found_and_no_others(head_map: HeadMap):
    """Each class has the heads that were planted; the readers carry the retrieval class together."""
    assert set(head_map.members("retrieval")) == READERS
    assert head_map.members("induction") == (INDUCTION,)
    assert head_map.members("local") == (LOCAL,)
    assert head_map.members("sink") == (SINK,)
    assert len(head_map.heads) == LAYERS * HEADS
    for item in head_map.heads:
        assert set(item.scores) == {"documents", "needle", "induction", "local", "sink"}
        assert all(score.low <= score.value <= score.high for score in item.scores.values())


def test_the_choice_is_judged_on_requests_that_it_has_not_seen(head_map: HeadMap):
    """Averaging readers beats averaging all heads; neither length nor the answer's probability tells anything."""
    evaluation = head_map.evaluation
    assert evaluation is not None
    assert evaluation.questions == QUESTIONS
    heads, everything = evaluation.auroc["retrieval_heads"], evaluation.auroc["all_heads"]
    assert heads.low > 0.9
    assert everything.value < heads.low
    assert evaluation.auroc["prompt_tokens"].value == 0.5
    assert evaluation.auroc["answer_probability"].low < 0.5 < evaluation.auroc["answer_probability"].high


def test_held_out_requests_do_not_move_the_choice():
    """Whatever they are, the heads and their scores stay the same: only the evaluation changes."""
    one = measured()
    other = Measured(one.calibration, measured(9).held_out, one.needles, one.induction, one.status)
    first, second = mapped(one), mapped(other)
    assert first.evaluation != second.evaluation
    assert msgspec.structs.replace(first, evaluation=None) == msgspec.structs.replace(second, evaluation=None)


def test_same_seed_same_bytes(head_map: HeadMap):
    """The file is reproducible, byte for byte; another seed draws other intervals around the same scores."""
    assert encode_head_map(mapped(measured())) == encode_head_map(head_map)
    other = mapped(measured(), seed=1)
    assert encode_head_map(other) != encode_head_map(head_map)
    for one, again in zip(head_map.heads, other.heads, strict=True):
        assert {probe: score.value for probe, score in one.scores.items()} == {
            probe: score.value for probe, score in again.scores.items()
        }


def test_a_map_carries_no_time_and_no_path(head_map: HeadMap):
    """Such things would make every file a different one, and tell of the machine."""
    text = encode_head_map(head_map).decode()
    assert "/" not in text
    assert not {"recorded_at", "time", "seconds"} & set(json.loads(text)["provenance"])


def test_heads_that_find_no_needle_are_no_candidates():
    """A head may tell documents apart for another reason than reading them."""
    found = measured()
    found.needles.mass[:, 2, 1] = 0.01
    assert set(mapped(found).members("retrieval")) == READERS - {(2, 1)}


def test_a_model_that_reads_nothing_gets_no_retrieval_heads():
    """The map is still made, the report says so, and does not pass."""
    found = measured()
    found.needles.mass[...] = 0.0
    head_map = mapped(found)
    assert head_map.members("retrieval") == ()
    assert head_map.evaluation is not None
    assert "retrieval_heads" not in head_map.evaluation.auroc
    report = summarise(head_map, "map.json", 0.9, {}, 1.0)
    assert not report.passed
    assert "WARNING" in render(report)


def test_heads_that_were_not_captured_are_left_out():
    """A layer without attention has no scores, and nothing else changes."""
    found = measured()
    for array in (
        *(part for half in (*found.calibration, *found.held_out) for part in (half.lookback, half.local_mass, half.sink_mass)),
        found.needles.mass, found.induction,
    ):  # fmt: skip
        array[:, 6] = np.nan
    head_map = mapped(found)
    assert {item.layer for item in head_map.heads} == set(range(LAYERS)) - {6}
    assert set(head_map.members("retrieval")) == READERS
    assert head_map.layers == LAYERS


@pytest.mark.parametrize("heads", [1, 12, 20, 40, 270, 1000, 5120])
def test_always_fewer_than_five_percent(heads: int):
    counts = head_counts(heads)
    assert counts[0] == 1
    assert counts == sorted(set(counts))
    assert counts[-1] / heads < 0.05 or counts == [1]
    assert heads < 100 or (counts[-1] + 1) / heads >= 0.05, "as many as are allowed are tried"


def test_noise_is_not_taken_for_a_large_set():
    """Cross-validation: one strong head among noise is chosen with few others, though more would fit the data as well."""
    source = np.random.default_rng(1)
    right, wrong = source.normal(0, 1, (2, 40, 20, 20))
    right[:, 3, 7] += 3
    choice = choose_heads(right, wrong, np.ones((20, 20), bool), np.random.default_rng(0))
    assert choice.heads[0] == (3, 7)
    assert len(choice.heads) <= 3
    assert choice.cross_validated[1] > choice.cross_validated[max(choice.cross_validated)]


def test_several_good_heads_are_averaged():
    """Where averaging more heads tells no less, the ratio does not hang on one of them."""
    source = np.random.default_rng(2)
    right, wrong = source.normal(0, 1, (2, 40, 20, 20))
    right[:, 3, :12] += 1.5
    choice = choose_heads(right, wrong, np.ones((20, 20), bool), np.random.default_rng(0))
    assert len(choice.heads) >= 8
    assert {layer for layer, _ in choice.heads[:8]} == {3}


def test_report_names_heads_and_figures(head_map: HeadMap):
    """A reader sees which heads, how many of all, and the figures with their controls."""
    report = summarise(head_map, "map.json", 0.9, {"layers.3": "kernel: differs"}, 12.4)
    text = render(report)
    assert report.passed
    assert "3 retrieval, 1 induction, 1 local, 1 sink" in text
    assert "2.1, 7.8, 11.0" in text
    assert "2.5%" in text
    assert "prompt length (control)       0.500  [0.500, 0.500]" in text
    assert "refused: layers.3" in text
    assert "WARNING" not in text


def test_weights_are_hashed_as_anybody_can_check(tmp_path: Path):
    """The shell gives the same number; one changed byte gives another."""
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "config.json").write_text("{}")
    printed = subprocess.run(
        "LC_ALL=C; sha256sum *.safetensors | sha256sum", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert weights_sha256(tmp_path) == printed
    (tmp_path / "b.safetensors").write_bytes(b"twp")
    assert weights_sha256(tmp_path) != printed
    assert weights_sha256(tmp_path) != hashlib.sha256(b"one").hexdigest()


def test_a_folder_without_weights_is_said_so(tmp_path: Path):
    with pytest.raises(CommandError, match=r"holds no weights \(\*\.safetensors"):
        weights_sha256(tmp_path)


def test_written_maps_load(tmp_path: Path, head_map: HeadMap):
    path = tmp_path / "map.json"
    path.write_bytes(encode_head_map(head_map))
    assert load_head_map(str(path)) == head_map
