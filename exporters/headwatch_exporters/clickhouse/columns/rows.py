"""Single rows of detail 2 and more as columns of ``headwatch_rows``.

Features and masses are written as codes of a byte (:mod:`.share_code`).  All other bytes stay as the worker sent them: 16
rows of a megabyte each go in within 0.2 s, as arrays of numbers they would take a hundred times as long.  The spans of the
prompt stand beside each row, so that a row can be drawn before its request ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES
from headwatch_exporters.clickhouse.columns.share_code import SHARES, to_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.records import RowEvidence
    from headwatch_exporters.clickhouse.columns import Columns

TABLE = "headwatch_rows"
_U32 = 2**32 - 1
_I32 = 2**31 - 1


def row_columns(rows: Sequence[RowEvidence], service: str) -> Columns:
    """Return *rows* as columns.  Numbers that a client chose are held within what their columns take."""
    spans = [row.context.spans for row in rows]
    return {
        "time": [row.time_ns for row in rows],
        "service": [service] * len(rows),
        "model": [row.worker.model for row in rows],
        "route": [row.context.route for row in rows],
        "arm": [row.context.arm for row in rows],
        "request_id": [row.context.request_id for row in rows],
        "engine_id": [row.context.engine_id for row in rows],
        "instance": [row.worker.instance for row in rows],
        "revision": [row.worker.revision for row in rows],
        "adapter": [row.context.adapter for row in rows],
        "rank": [_within(row.worker.rank, 0, _U32) for row in rows],
        "prompt_tokens": [_within(row.context.prompt_tokens, 0, _U32) for row in rows],
        "position": [row.position for row in rows],
        "detail": [row.detail for row in rows],
        "layers": [list(row.layers) for row in rows],
        "heads": [row.heads for row in rows],
        "head_offset": [row.head_offset for row in rows],
        "code": [SHARES] * len(rows),
        "features": [to_code(np.frombuffer(row.features, "<f4").reshape(-1, len(FEATURES)).T).tobytes() for row in rows],
        "span_mass": [to_code(np.frombuffer(row.span_mass, "<f4")).tobytes() for row in rows],
        "value_mass": [row.value_mass for row in rows],
        "output_norm": [row.output_norm for row in rows],
        "block_tokens": [row.block_tokens for row in rows],
        "block_profile": [row.block_profile for row in rows],
        "top_k": [row.top_k for row in rows],
        "top_position": [row.top_position for row in rows],
        "top_weight": [row.top_weight for row in rows],
        "full_weight": [row.full_weight for row in rows],
        "spans.kind": [[span.kind for span in found] for found in spans],
        "spans.start": [[_within(span.start, 0, _U32) for span in found] for found in spans],
        "spans.end": [[_within(span.end, 0, _U32) for span in found] for found in spans],
        "spans.document": [[_within(span.document, -1, _I32) for span in found] for found in spans],
        "spans.age": [[_within(span.age, 0, _U32) for span in found] for found in spans],
    }


def _within(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)
