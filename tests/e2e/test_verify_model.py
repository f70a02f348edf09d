"""The proof on the real model: every exported number is the model's own attention."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.model


def verify(*arguments: str) -> dict[str, object]:
    """Run the command as a user does; stdout must be one JSON document and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "headwatch.cli.main", "verify", "--json", *arguments],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-4), pytest.param("bfloat16", 2e-2, marks=pytest.mark.long)]
)
def test_every_feature_of_every_head_is_within_its_bound(dtype: str, bound: float) -> None:
    report = verify("--dtype", dtype)
    assert report["rows"] >= 200  # type: ignore[operator]
    assert (report["layers"], report["heads"], report["dtype"]) == (30, 9, dtype)
    errors = report["max_abs_error"]
    assert isinstance(errors, dict)
    assert set(errors) >= {"entropy", "max_weight", "sink_mass", "local_mass", "distance", "lookback", "span_mass"}
    assert max(errors.values()) <= bound, errors
    assert not report["refused_layers"]
    assert (report["distance_to_transformers"] is None) == (dtype == "float32")
