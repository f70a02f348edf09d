"""Every kind of attention that the CPU engine serves, on a tiny random model of a real architecture.

One process each, two at a time (serve.py): all that are asked for are started when the first test wants one.  With
``HEADWATCH_MATRIX=write`` what is seen goes into docs/support-matrix.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .matrix import Row, saw

SCRIPT = Path(__file__).with_name("serve.py")
WAIT_SECONDS = 540
TEXT = {"entropy", "max_weight", "sink_mass", "local_mass", "distance", "lookback", "span_mass", "document_mass"}

VARIANTS = {
    "mha": "multi-head",
    "gqa": "grouped-query",
    "gqa:bfloat16": "grouped-query",
    "gqa:float16": "grouped-query",
    "mqa": "multi-query",
    "sliding": "sliding window",
    "interleaved": "sliding and global layers",
    "softcap": "logit softcap",
    "chunked": "chunked local layers",
    "alibi": "ALiBi",
    "sinks": "learned sinks",
    "sinks:bfloat16": "learned sinks",
    "mla": "latent (MLA)",
    "mla:bfloat16": "latent (MLA)",
    "shared": "shared caches",
    "moe": "mixture of experts",
    "hybrid": "beside Mamba layers",
    "convolution:bfloat16": "beside short convolutions",
    "image": "image tokens",
    "speech": "cross-attention over sound",
    "vec16": "head sizes of 16 (vec16)",
}
"""What serve.py is asked for, and the row of the matrix.

Lfm2 runs in halves alone, where the engine's own queries and keys are the reference: vLLM 0.32 on the CPU and transformers
5.19 compute its short convolutions differently, so that their hidden states are not the same.
"""
LAYERS = {
    "interleaved": 6, "softcap": 4, "chunked": 4, "sinks": 4, "shared": 6, "speech": 4,
}  # fmt: skip
"""Attention layers, where they are not two.  A Whisper's decoder has two in each layer."""
SPOKEN = (TEXT - {"lookback", "document_mass"}) | {"centroid"}
"""Sounds come without documents."""
LEAST_ROWS = {"speech": 25}


AMX = "amx_tile" in Path("/proc/cpuinfo").read_text()


class Runs:
    """The variants that this session runs."""

    def __init__(self, folder: Path, jobs: list[str]) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *jobs], stdout=(folder / "serve.log").open("w"), stderr=subprocess.STDOUT
        )

    def report(self, job: str) -> dict:
        """Return the report of one variant, once it is there."""
        variant, _, dtype = job.partition(":")
        path = self.folder / f"{variant}.{dtype or 'float32'}.json"
        deadline = time.monotonic() + WAIT_SECONDS
        while not path.exists():
            ended = self.process.poll() is not None
            if (ended and not path.exists()) or time.monotonic() > deadline:
                log = path.with_suffix(".log")
                pytest.fail(f"{job} was not served:\n{log.read_text()[-3000:] if log.exists() else 'it did not start'}")
            time.sleep(0.2)
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory):
    wanted = [item.callspec.params["job"] for item in request.session.items if "runs" in getattr(item, "fixturenames", ())]
    started = Runs(tmp_path_factory.mktemp("variants"), list(dict.fromkeys(wanted)))
    yield started
    started.process.terminate()
    started.process.wait(30)


def model_class(runs, job):
    variant, _, dtype = job.partition(":")
    config = json.loads((runs.folder / f"{variant}.{dtype or 'float32'}" / "config.json").read_text())
    return config["architectures"][0]


def refused_by_name_or_by_the_engine(report):
    """On processors with AMX vLLM has another implementation of MLA, which runs in no float32 and is none that we know."""
    if "error" in report:
        assert "expect weight to be bfloat16" in report["error"]
        return
    assert report["backend"] == "AMXMLAImpl"
    assert len(report["refused_layers"]) == 2
    assert all("AMXMLAImpl is not supported" in reason for reason in report["refused_layers"].values())


@pytest.mark.engine
@pytest.mark.parametrize("job", VARIANTS)
def test_every_feature_agrees_with_transformers(runs, job):
    """In float32 within 1e-4; in halves within 2e-2 of float64 attention from the engine's own queries and keys."""
    report = runs.report(job)
    if job.startswith("mla") and AMX:
        refused_by_name_or_by_the_engine(report)
        return
    assert "error" not in report, report
    assert report["passed"] is True, report
    assert report["refused_layers"] == {}
    assert report["layers"] == LAYERS.get(job.partition(":")[0], 2)
    assert report["rows"] >= LEAST_ROWS.get(job, 60)
    assert min(report["compared"].values()) >= 40
    assert set(report["max_abs_error"]) == (SPOKEN if job == "speech" else TEXT)
    worst = max(report["max_abs_error"].values())
    assert worst <= (1e-4 if report["dtype"] == "float32" else 2e-2)
    saw(Row(
        variant=VARIANTS[job], model=model_class(runs, job), vllm=report["engine_version"], runner=report["runner"],
        backend=report["backend"], layout=", ".join(report["layouts"]), dtype=report["dtype"], rows=report["rows"],
        max_error=worst, bound=report["bound"], against=report["reference"], shown_by="real engine",
    ))  # fmt: skip


@pytest.mark.engine
@pytest.mark.parametrize(("job", "kind"), [("hybrid", "mamba2"), ("convolution:bfloat16", "short_conv")])
def test_layers_without_attention_are_named_and_are_no_failure(runs, job, kind):
    report = runs.report(job)
    assert sorted(report["left_out"].values()) == [f"no attention: {kind}"] * 2
    assert report["refused_layers"] == {}


@pytest.mark.engine
@pytest.mark.parametrize("job", ["image", "speech"])
def test_encoders_are_named_as_left_out(runs, job):
    """Neither the eye nor the ear of a model attends to the request's positions."""
    report = runs.report(job)
    assert len(report["left_out"]) >= 1
    assert all(reason.startswith("encoder: ") for reason in report["left_out"].values())


@pytest.mark.engine
@pytest.mark.parametrize("job", ["image"])
def test_pictures_are_spans(runs, job):
    assert "image" in runs.report(job)["coverage"]["span_kinds"]


@pytest.mark.engine
@pytest.mark.parametrize("job", ["speech"])
def test_sounds_are_spans_and_have_a_place_in_them(runs, job):
    """Where in the sound a head listens (the centroid) is what shows a break in the alignment."""
    report = runs.report(job)
    assert "audio" in report["coverage"]["span_kinds"]
    assert report["compared"]["centroid"] >= 400


@pytest.mark.engine
@pytest.mark.parametrize("job", ["sliding", "softcap", "chunked", "shared", "sinks"])
def test_prompts_go_beyond_the_windows_and_through_chunked_prefill(runs, job):
    """Prompts are longer than what a layer sees, so that a window that is not applied would show."""
    assert runs.report(job)["coverage"]["chunked_prefills"] >= 2
