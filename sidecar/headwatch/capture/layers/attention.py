"""The nouns of one layer's attention: its rule, and what the positions of a prompt are.

Free of torch, so that the plan of a step and the sending thread need not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from headwatch.model import Span


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """What one layer does to its logits, and which positions it hides.  Taken from the engine's implementation."""

    scale: float
    softcap: float = 0.0
    """Logits become ``softcap · tanh(logit / softcap)``; 0: none."""
    window: int = 0
    """Positions visible to a query, its own included; 0: all before it."""
    chunk: int = 0
    """A query sees only positions of its own chunk of so many (Llama 4's local layers); 0: no chunks."""
    causal: bool = True
    """False: every position is visible, and none of them is the query's own (cross-attention)."""
    alibi_slopes: Tensor | None = None  # [H]
    sinks: Tensor | None = None  # [H] logits of learned sinks

    def first_visible(self, position: int) -> int:
        """Return the first position that the query at *position* sees."""
        first = max(0, position - self.window + 1) if self.window > 0 else 0
        return max(first, position - position % self.chunk) if self.chunk > 0 else first


@dataclass(frozen=True, slots=True)
class RowSpans:
    """The spans of one request, shared by all its rows.  They follow each other without a gap, from position 0 on."""

    ends: NDArray[np.int32]
    """[spans]: the end of each span; the last one is the length of the prompt."""
    document: NDArray[np.uint8]
    """[spans]: 1 where a span belongs to a document."""

    @property
    def spans(self) -> int:
        """Return the number of spans of the prompt; masses have one entry more, for the generated text."""
        return len(self.ends)

    def at(self, visible: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the span number and the document flag of the first *visible* positions; generated ones are last."""
        index = np.searchsorted(self.ends, np.arange(visible), side="right")
        return index, np.append(self.document, 0).astype(np.bool_)[index]


def row_spans(spans: Sequence[Span]) -> RowSpans:
    """Return *spans* as the arrays that kernels walk along.

    Raises:
        ValueError: They leave a gap, overlap, or do not start at 0.
    """
    starts = [span.start for span in spans]
    ends = [span.end for span in spans]
    if starts != [0, *ends[:-1]][: len(spans)] or any(end <= start for start, end in zip(starts, ends, strict=True)):
        raise ValueError(f"spans must follow each other from position 0 on, not {list(zip(starts, ends, strict=True))[:8]}")
    return RowSpans(
        np.array(ends, np.int32), np.array([span.kind == "document" for span in spans], np.uint8)
    )
