"""Detail 4 and value masses out of real vLLM: what arrives is what transformers attends, and no token changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headwatch.wire.mass_code import RELATIVE_ERROR

HERE = Path(__file__).parent

pytestmark = pytest.mark.engine


def script(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def gqa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gqa")
    build = f"import sys; sys.path.insert(0, {str(HERE)!r}); import tiny_models, pathlib; "
    subprocess.run(
        [sys.executable, "-c", build + f"tiny_models.build(pathlib.Path({str(folder)!r}), 'gqa')"], check=True, timeout=200
    )
    return folder


@pytest.fixture(scope="module")
def found(gqa):
    return script(HERE / "detail_script.py", gqa)


def test_every_column_agrees_with_transformers(found):
    """Whole rows to half a float16 step, top weights and span masses to 1e-4, blocks to the error of their code."""
    assert found["rows"] > 60
    assert found["details"] == [4]
    error = found["error"]
    assert error["full"] <= 6e-4
    assert error["top_weight"] <= 1e-4
    assert error["max_weight"] <= 1e-5, "the kernel's own maximum and the oracle's"
    assert error["span_mass"] <= 1e-4
    assert error["block"] <= RELATIVE_ERROR + 2e-3
    assert error["carried"] <= 1e-4


def test_every_row_arrives_and_no_frame_is_refused(found):
    counters = found["counters"]
    assert found["rejected"] == {}
    assert counters["rows_planned"] == counters["rows_sent"]
    assert counters["rows_dropped"] == counters["rows_refused"] == 0
    assert not any(name.startswith("detail_reduced") for name in counters)


def test_looking_closely_changes_no_token(found, gqa, tmp_path):
    plain = script(HERE / "verify_script.py", "plain", gqa, tmp_path)["tokens"]
    assert [tokens[: len(mine)] for tokens, mine in zip(plain, found["tokens"], strict=True)] == found["tokens"]
