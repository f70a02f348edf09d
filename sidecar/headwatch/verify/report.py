"""What ``headwatch verify`` says: one document, and one verdict."""

from __future__ import annotations

from typing import Literal

import msgspec

from headwatch.verify.comparison import Worst

BOUND = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-2}
"""Largest accepted absolute error of any feature, by dtype."""

Reference = Literal["transformers", "engine_qk"]


class Coverage(msgspec.Struct, frozen=True):
    """What the prompts exercised."""

    requests: int
    batches: int
    chunked_prefills: int
    """Prompts longer than one engine step takes."""
    prefix_cache_hits: int
    multi_turn: int
    documents_found: int
    documents_missing: int
    """Named by a client and not in the prompt; one on purpose."""
    span_kinds: list[str]
    rows_prefill: int
    rows_decode: int


class VerifyReport(msgspec.Struct, frozen=True):
    """The result.  A row is one query position of one request with all its layers and heads."""

    rows: int
    layers: int
    heads: int
    dtype: str
    max_abs_error: dict[str, float]
    refused_layers: dict[str, str]
    """Layer name to reason."""
    passed: bool
    bound: float
    reference: Reference
    """``transformers``: eager attention.  ``engine_qk``: float64 attention from the engine's own queries and keys."""
    compared: dict[str, int]
    """Values compared of each feature."""
    undefined_mismatches: dict[str, int]
    """Values that only one side defines."""
    missing_rows: int
    """Generated rows that should have been captured and were not."""
    unexpected_rows: int
    failing_layers: list[int]
    distance_to_transformers: dict[str, float] | None
    """Largest difference from transformers, where that is not the reference."""
    worst: dict[str, Worst]
    """Where the largest error of each feature was seen."""
    coverage: Coverage
    model: str
    engine_version: str
    runner: str
    """Which of vLLM's model runners."""
    backend: str
    layouts: list[str]
    """Layouts of the caches that were read."""
    left_out: dict[str, str]
    """Layers that do not attend to the prompt: name to why."""
    seconds: float


def render(report: VerifyReport) -> str:
    """Return *report* for people, in at most thirty lines."""
    lines = [
        (f"{report.rows} rows x {report.layers} layers x {report.heads} heads of {report.model}, {report.dtype}, "
         f"against {'transformers' if report.reference == 'transformers' else 'the queries and keys of the engine'}"),
        "",
        f"{'feature':<16}{'largest error':>14}{'compared':>12}{'to transformers':>18}",
    ]
    for feature, error in report.max_abs_error.items():
        distance = (report.distance_to_transformers or {}).get(feature)
        last = f"{distance:>18.2e}" if distance is not None else f"{'':>18}"
        lines.append(f"{feature:<16}{error:>14.2e}{report.compared[feature]:>12}{last}".rstrip())
    lines.append("")
    lines.extend(f"refused: {layer}: {reason}" for layer, reason in report.refused_layers.items())
    if report.missing_rows:
        lines.append(f"missing: {report.missing_rows} generated rows were not captured")
    if report.unexpected_rows:
        lines.append(f"unexpected: {report.unexpected_rows} rows lie outside their request")
    for feature, count in report.undefined_mismatches.items():
        if count:
            lines.append(f"undefined: {count} values of {feature} are defined on one side only")
    lines.append(f"{'passed' if report.passed else 'FAILED'}: the bound is {report.bound:g}; {report.seconds:.0f} s")
    return "\n".join(lines)
