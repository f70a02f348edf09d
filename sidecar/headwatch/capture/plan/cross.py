"""A decoder's rows over its encoder's positions (Whisper): the query rows of the step, with other keys and other spans.

Each sampled row is summarised twice, over the text so far and over the encoder's input, and travels in a frame for each.
The encoder's input is known when the request arrives; all of it is visible to every row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headwatch.capture.plan.parts import StepPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.capture.plan.step import RequestRows


def cross_part(rows: Sequence[RequestRows]) -> StepPart | None:
    """Return those of *rows* whose request has an encoder's input, over that; None where there are none.

    They carry span masses and no detail beyond: what a viewer draws is the text.
    """
    placed: list[RequestRows] = []
    first_row = first_span = 0
    for item in rows:
        twin = item.request.cross
        if twin is None:
            continue
        placed.append(
            replace(item, request=twin, keys=int(twin.spans.ends[-1]), first_row=first_row, first_span=first_span)
        )
        first_row += len(item.positions)
        first_span += len(item.positions) * (twin.spans.spans + 1)
    return StepPart(1, placed, first_row, first_span, attention="cross") if placed else None
