"""Calibration of the real model as a user runs it: a few heads tell right from wrong documents, and length does not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headwatch.aggregate.head_map import load_head_map
from headwatch.calibrate.weights import weights_sha256
from headwatch.demo.model import prepare_model
from headwatch.demo.run import packaged_head_map
from headwatch.demo.servers import SERVED_MODEL

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.model, pytest.mark.long]


@pytest.mark.timeout(3600)
def test_few_heads_tell_right_from_wrong_documents_on_held_out_questions(tmp_path: Path):
    """AUROC of the retrieval heads 0.90 and more on questions that chose nothing; fewer than 5 % of the heads; the length
    of the prompt tells nothing."""
    out = tmp_path / "map.json"
    done = subprocess.run(
        [sys.executable, "-m", "headwatch.cli.main", "calibrate", "heads", "--out", str(out), "--json"],
        capture_output=True, text=True, check=False, timeout=3500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    auroc = report["evaluation"]["auroc"]
    assert report["evaluation"]["questions"] >= 60
    assert auroc["retrieval_heads"][0] >= 0.90, auroc
    assert auroc["retrieval_heads"][0] > auroc["all_heads"][0]
    _, low, high = auroc["prompt_tokens"]
    assert low <= 0.5 <= high
    assert 0 < len(report["retrieval_heads"]) < 0.05 * 30 * 9
    assert report["heads"] == 30 * 9
    assert all(report["classes"].values()), "every class has members in this model"

    made, shipped = load_head_map(str(out)), load_head_map(str(packaged_head_map()))
    assert made.model == shipped.model == SERVED_MODEL
    assert made.model_sha256 == shipped.model_sha256 == weights_sha256(prepare_model())
    # Made on another machine, whose kernels may round otherwise: most of the heads are the same, if not each.
    shared = set(made.members("retrieval")) & set(shipped.members("retrieval"))
    assert len(shared) >= 0.7 * len(shipped.members("retrieval"))
