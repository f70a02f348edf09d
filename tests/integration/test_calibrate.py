"""Calibration through real vLLM on a tiny random model: the same bytes twice, and the numbers of another implementation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headwatch.aggregate.head_map import load_head_map
from headwatch.calibrate.repeats import LENGTH

from .tiny_models import build

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).with_name("calibrate_script.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("gqa"), "gqa")


def calibrate(model: Path, out: Path) -> dict[str, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(model), str(out)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def calibrated(model, tmp_path_factory):
    """The head map's file, and what two prompts gave."""
    out = tmp_path_factory.mktemp("first") / "map.json"
    return out, calibrate(model, out)


def test_same_seed_same_file(model, calibrated, tmp_path):
    """A second process writes the same bytes."""
    calibrate(model, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == calibrated[0].read_bytes()


def test_every_head_is_scored_and_nothing_is_found_in_noise(calibrated):
    """Random weights read nothing: all heads have scores, none has a class."""
    head_map = load_head_map(str(calibrated[0]))
    assert [(item.layer, item.head) for item in head_map.heads] == [(layer, head) for layer in range(3) for head in range(4)]
    assert all(len(item.scores) == 5 for item in head_map.heads)
    assert not any(item.classes for item in head_map.heads)


def test_induction_mass_is_what_transformers_gives(model, calibrated):
    """Mean weight on the token after the earlier occurrence, over rows of the second copy."""
    from headwatch.verify.eager import EagerModel

    probe = calibrated[1]["repeats"]
    weights = np.stack(list(EagerModel(model, "float32").attention(probe["ids"]).values()))  # [L, H, n, n]
    rows = [row for row in range(LENGTH, 2 * LENGTH - 1) if (2 * LENGTH - 1 - row) % 4 == 0]
    expected = np.mean([weights[:, :, row, row - LENGTH + 1] for row in rows], axis=0)
    np.testing.assert_allclose(probe["mass"], expected, atol=1e-5)


def test_needle_mass_is_what_transformers_gives(model, calibrated):
    """Mean weight on the needle's tokens, over the rows that ask for its number."""
    from transformers import AutoTokenizer

    from headwatch.verify.eager import EagerModel

    probe = calibrated[1]["needle"]
    (start, end), = probe["spans"]
    assert AutoTokenizer.from_pretrained(model).decode(probe["ids"][start:end]).strip() == probe["sentence"]
    agreeing = next(
        (place for place, (one, other) in enumerate(zip(probe["number_ids"], probe["generated_ids"], strict=True))
         if one != other), len(probe["number_ids"]) - 1,
    )  # fmt: skip
    weights = np.stack(list(EagerModel(model, "float32").attention(probe["ids"][:-1]).values()))
    last = probe["prompt_tokens"] - 1
    expected = np.mean([weights[:, :, row, start:end].sum(-1) for row in range(last, last + agreeing + 1)], axis=0)
    np.testing.assert_allclose(probe["mass"], expected, atol=1e-5)
