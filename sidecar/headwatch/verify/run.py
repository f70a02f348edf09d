"""``headwatch verify`` from end to end: serve, attend again, compare, judge."""

from __future__ import annotations

import gc
import math
import time
from functools import partial
from typing import TYPE_CHECKING

from headwatch.errors import CommandError
from headwatch.verify.cases import REQUESTS, waves_for
from headwatch.verify.comparison import COMPARED, COMPARED_WITH_ENCODER, Comparison
from headwatch.verify.eager import EagerModel
from headwatch.verify.engine import CHUNK_TOKENS, run_engine
from headwatch.verify.engine_attention import EngineAttention
from headwatch.verify.report import BOUND, Coverage, VerifyReport
from headwatch.verify.rules import layer_rules, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from headwatch.verify.comparison import CapturedRow
    from headwatch.verify.eager import Weights
    from headwatch.verify.engine import EngineRun, Progress, ServedRequest
    from headwatch.verify.rules import LayerRule

DEFAULT_ROWS = 200
MAX_GENERATED_TOKENS = 512
PREFILL_STRIDE = 24
"""Of the prompts, every so many rows one is compared, beside all generated ones."""


def verify(model: Path, dtype: str, rows: int, progress: Progress = lambda _: None) -> VerifyReport:
    """Return how far what capture exports of *model* lies from its reference, over at least *rows* rows.

    Raises:
        CommandError: *rows* or *dtype* is out of range, or the engine or the model cannot be had.
    """
    started = time.monotonic()
    if dtype not in BOUND:
        raise CommandError(f"dtype {dtype!r} has no bound; choose from {', '.join(BOUND)}")
    rules = layer_rules(model)
    observer = EngineAttention(rules) if dtype != "float32" else None
    waves = waves_for(read_config(model))
    served = run_engine(
        model,
        dtype,
        waves,
        generated_tokens=generated_tokens(rows, sum(map(len, waves))),
        prefill_stride=PREFILL_STRIDE,
        observer=observer,
        progress=progress,
    )
    gc.collect()  # the engine's cache, before a second copy of the weights is loaded
    return judge(served, model, dtype, rules, observer, started, progress)


def generated_tokens(rows: int, requests: int = REQUESTS) -> int:
    """Return how many tokens each of *requests* must generate for *rows* generated rows.

    The last token is never fed back, so it gives no row.

    Raises:
        CommandError: *rows* is out of range.
    """
    tokens = math.ceil(rows / requests) + 1
    if rows < 1 or tokens > MAX_GENERATED_TOKENS:
        raise CommandError(f"rows must lie between 1 and {(MAX_GENERATED_TOKENS - 1) * requests}, not {rows}")
    return tokens


def judge(
    served: EngineRun,
    model: Path,
    dtype: str,
    rules: Mapping[int, LayerRule],
    observer: EngineAttention | None,
    started: float,
    progress: Progress = lambda _: None,
) -> VerifyReport:
    """Return the report on what was *served*.

    Without *observer* the reference is transformers; with it, the attention that it recorded, and the distance to
    transformers is reported beside.
    """
    eager = EagerModel(model, dtype)
    features = COMPARED_WITH_ENCODER if any(rule.cross for rule in rules.values()) else COMPARED
    to_transformers, to_engine = Comparison(features), Comparison(features)
    comparison = to_transformers if observer is None else to_engine
    compared: list[CapturedRow] = []
    missing = unexpected = 0
    for number, request in enumerate(served.requests, 1):
        progress(f"comparing request {number} of {len(served.requests)}: {request.case.name}")
        tokens = request.prompt_ids + request.generated_ids
        captured = served.rows.get(request.request_id, [])
        known = [row for row in captured if row.position < len(tokens)]
        unexpected += len(captured) - len(known)
        missing += len(_expected_positions(request) - {row.position for row in known})
        compared += known
        if not known:
            continue
        from_transformers = partial(_eager_row, eager.attention(tokens, request.case), rules)
        for row in known:
            to_transformers.add(request.case.name, row, rules, from_transformers)
            if observer is not None:
                to_engine.add(request.case.name, row, rules, partial(observer.weights, row.context.engine_id))

    layers = {layer for row in compared for layer in row.layers}
    bound = BOUND[dtype]
    return VerifyReport(
        rows=_whole_rows(compared, layers),
        layers=len(layers),
        heads=max((row.features.shape[1] for row in compared), default=0),
        dtype=dtype,
        max_abs_error=comparison.max_abs_error,
        refused_layers=served.status.refused_layers,
        passed=comparison.passes(bound)
        and not served.status.refused_layers
        and not missing
        and not unexpected
        and len(layers) == len(rules),
        bound=bound,
        reference="transformers" if observer is None else "engine_qk",
        compared=comparison.compared,
        undefined_mismatches=comparison.undefined_mismatches,
        missing_rows=missing,
        unexpected_rows=unexpected,
        failing_layers=comparison.layers_over(bound),
        distance_to_transformers=None if observer is None else to_transformers.max_abs_error,
        worst=comparison.worst,
        coverage=_coverage(served, compared),
        model=str(model),
        engine_version=served.status.worker.engine_version,
        runner=served.status.runner,
        backend=served.status.backend,
        layouts=list(served.layouts),
        left_out=served.status.left_out,
        seconds=round(time.monotonic() - started, 1),
    )


def _whole_rows(rows: Sequence[CapturedRow], layers: set[int]) -> int:
    """Return how many rows have all *layers*, which may come in several frames."""
    found: dict[tuple[str, int], set[int]] = {}
    for row in rows:
        found.setdefault((row.context.engine_id, row.position), set()).update(row.layers)
    return sum(seen == layers for seen in found.values())


def _eager_row(attention: Weights, rules: Mapping[int, LayerRule], layer: int, position: int) -> NDArray[np.floating]:
    row = attention[layer][:, position]
    return row if rules[layer].cross else row[:, : position + 1]


def _expected_positions(request: ServedRequest) -> set[int]:
    """Return the rows that must be there: the last of the prompt, and every generated token that was fed back."""
    prompt = len(request.prompt_ids)
    return set(range(prompt - 1, prompt + len(request.generated_ids) - 1))


def _coverage(served: EngineRun, rows: Sequence[CapturedRow]) -> Coverage:
    requests = served.requests
    contexts = {row.context.engine_id: row.context for row in rows}.values()
    decode = sum(row.position >= row.context.prompt_tokens for row in rows)
    return Coverage(
        requests=len(requests),
        batches=served.batches,
        chunked_prefills=sum(len(item.prompt_ids) - item.cached_tokens > CHUNK_TOKENS for item in requests),
        prefix_cache_hits=sum(item.cached_tokens > 0 for item in requests),
        multi_turn=sum(any(role == "assistant" for role, _ in item.case.messages) for item in requests),
        documents_found=sum(document.found for context in contexts for document in context.documents),
        documents_missing=sum(not document.found for context in contexts for document in context.documents),
        span_kinds=sorted({span.kind for context in contexts for span in (*context.spans, *context.encoder_spans)}),
        rows_prefill=len(rows) - decode,
        rows_decode=decode,
    )
