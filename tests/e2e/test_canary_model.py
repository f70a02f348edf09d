"""Canaries on the real model through a real server: each kind of change is found in one run and told from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.bench.canary_stage import Stage, staged
from headwatch.bench.triage.variants import middle_layer, write_variant
from headwatch.canary.compare import compare
from headwatch.canary.fingerprint import Fingerprint, learn
from headwatch.canary.prompts import BUILT_IN
from headwatch.demo.model import prepare_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.model

MIDDLE = middle_layer(30)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(prepare_model(), tmp_path_factory.mktemp("canary")) as found:
        yield found


@pytest.fixture(scope="module")
def pinned(stage: Stage) -> Fingerprint:
    found = learn([stage.run() for _ in range(3)], BUILT_IN, 7)
    assert found.noise is None, "float32 is exact"
    return found


@pytest.mark.parametrize(
    ("variant", "hint", "layer", "size"),
    [
        ("altered_weight", "weights", MIDDLE + 1, "9 heads"),
        ("dead_head", "head", MIDDLE, "head 4"),
        ("fine_tuned_layer", "layer", MIDDLE, "9 heads"),
        ("bf16", "precision", 0, "rounding weights to bfloat16"),
        ("int8", "precision", 0, "8-bit weights"),
    ],
)
def test_a_change_is_found_in_one_run_where_it_was_made(
    stage: Stage, pinned: Fingerprint, tmp_path: Path, variant: str, hint: str, layer: int, size: str
) -> None:
    stage.reload(write_variant(variant, prepare_model(), tmp_path / variant))
    found = compare(pinned, stage.run())
    assert (found.failed, found.hint, found.earliest_layer) == (True, hint, layer)
    assert size in found.note
    assert all(item.failed for item in found.exhibits), "in every prompt"
    assert all(value == 0.0 for value in found.layers[:layer]), "nothing before it is different in a single bit"


def test_the_original_weights_are_recognised_bit_for_bit(stage: Stage, pinned: Fingerprint) -> None:
    stage.reload(prepare_model())
    found = compare(pinned, stage.run())
    assert not found.failed
    assert max(item.deviation for item in found.exhibits) == 0.0
