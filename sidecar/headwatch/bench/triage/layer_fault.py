"""A fault inside capture, planted through vLLM's own door: headwatch believes in a wrong scale for three layers.

A folder with the metadata of a distribution is put on the engine's path; it names :func:`register` as one more
``vllm.general_plugins``, which vLLM loads in every process, spawned workers included.  What follows is the real thing:
softmax(QKᵀ)V no longer matches the kernel's output, and the self-check refuses the layers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = (4, 15, 22)
_FACTOR = 1.25
_METADATA = "Metadata-Version: 2.1\nName: headwatch-layer-fault\nVersion: 0\n"
_ENTRY_POINTS = "[vllm.general_plugins]\nheadwatch_layer_fault = headwatch.bench.triage.layer_fault:register\n"


def install(folder: Path) -> Path:
    """Write the distribution into *folder*, and return what belongs on ``PYTHONPATH``."""
    metadata = folder / "headwatch_layer_fault-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(_METADATA, encoding="utf-8")
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS, encoding="utf-8")
    return folder


def register() -> None:
    """Plant the fault.  Idempotent."""
    from headwatch.capture.layers import discovery  # noqa: PLC0415 - loads torch, inside vLLM only

    original = discovery.rule_for
    if getattr(original, "planted", False):
        return

    def rule_for(layer: Any) -> Any:
        rule = original(layer)
        wrong = discovery.layer_number(layer.layer_name) in LAYERS
        return dataclasses.replace(rule, scale=rule.scale * _FACTOR) if wrong else rule

    rule_for.planted = True  # type: ignore[attr-defined]  # a mark for the next call
    discovery.rule_for = rule_for
