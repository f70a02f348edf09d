"""Importing headwatch costs next to nothing: every process of vLLM and every client does it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "opentelemetry", "prometheus_client", "clickhouse_connect", "chdb", "starlette", "uvicorn", "vllm"}


def measure(statement: str) -> tuple[float, set[str]]:
    """Return the seconds that *statement* takes in a fresh interpreter (best of five), and the modules it loads."""
    code = (
        f"import sys, time; before = set(sys.modules); start = time.perf_counter(); {statement}; "
        "took = time.perf_counter() - start; print(took, *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(5)
    ]
    return min(float(run[0]) for run in runs), set(runs[0][1:])


def test_importing_headwatch_takes_less_than_a_tenth_of_a_second():
    seconds, loaded = measure("import headwatch")
    assert seconds < 0.1
    assert loaded & (HEAVY | {"msgspec", "zmq"}) == set()


@pytest.mark.parametrize("module", ["headwatch.capture.plugin", "headwatch.cli.main", "headwatch.config", "headwatch.client"])
def test_what_is_loaded_at_every_start_stays_light(module: str):
    """vLLM loads the plugin in each process; what it needs further it loads when an engine starts."""
    seconds, loaded = measure(f"import {module}")
    assert loaded & HEAVY == set()
    assert seconds < 0.5


def test_a_client_that_names_its_documents_loads_neither_numpy_nor_msgspec():
    _, loaded = measure("from headwatch import request_field")
    assert loaded & (HEAVY | {"msgspec", "zmq"}) == set()


def test_the_wire_needs_nothing_but_msgspec_and_numpy():
    _, loaded = measure("import headwatch.wire.codec, headwatch.wire.columns")
    assert loaded & (HEAVY - {"numpy"}) == set()
