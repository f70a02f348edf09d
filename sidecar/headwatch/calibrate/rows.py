"""What comes back from the engine: captured rows in the model's own numbering of layers and heads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import RequestContext, SummaryBatch
    from headwatch.wire.columns import Columns


@dataclass(frozen=True, slots=True)
class Row:
    """One captured row.  L layers, H heads of the whole model; NaN for what was not captured."""

    context: RequestContext
    position: int
    features: NDArray[np.float32]  # [L, H, len(FEATURES)]
    span_mass: NDArray[np.float32]  # [S + 1, L, H]; the last is the generated text

    @property
    def document_mass(self) -> NDArray[np.float32]:
        """Return the mass [L, H] on all documents together."""
        chosen = [number for number, span in enumerate(self.context.spans) if span.document >= 0]
        total: NDArray[np.float32] = self.span_mass[chosen].sum(axis=0)
        return total

    def feature(self, name: str) -> NDArray[np.float32]:
        """Return the feature *name*, [L, H]."""
        return self.features[..., FEATURES.index(name)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine generated for a prompt, and the rows that capture sent of it, by ascending position."""

    generated_ids: tuple[int, ...]
    log_probability: float
    """Mean over the generated tokens."""
    rows: tuple[Row, ...]


@dataclass(slots=True)
class Inbox:
    """Collects rows on the receiver's thread; read when everything that was sent has arrived."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    """By the engine's id of the request, and position."""

    def consume(self, batch: SummaryBatch, columns: Columns) -> None:
        """Take the rows of one frame.  Layers of another number of heads, or other ranks, send the rest of a row."""
        if batch.attention != "self":
            return
        shape = (batch.worker.layers, batch.worker.heads)
        place = np.ix_(batch.layers, range(batch.head_offset, batch.head_offset + batch.heads))
        for index, (request, position) in enumerate(
            zip(columns.request.tolist(), columns.position.tolist(), strict=True)
        ):
            context = batch.requests[request]
            mass = columns.span_mass[index]
            row = self.rows.get((context.engine_id, position)) or Row(
                context,
                position,
                np.full((*shape, len(FEATURES)), np.nan, np.float32),
                np.full((len(mass), *shape), np.nan, np.float32),
            )
            row.features[place] = columns.features[index]
            row.span_mass[:, place[0], place[1]] = mass
            self.rows[context.engine_id, position] = row

    def take(self) -> dict[str, list[Row]]:
        """Return all rows by the client's id of the request, each by ascending position, and forget them."""
        taken: dict[str, list[Row]] = {}
        for _, row in sorted(self.rows.items(), key=lambda item: item[0]):
            taken.setdefault(row.context.request_id, []).append(row)
        self.rows.clear()
        return taken
