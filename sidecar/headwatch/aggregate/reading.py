"""Where a request's heads looked: by span kind, by age of the history, by document, for all heads and the calibrated ones.

Everything is computed for a row and head and then averaged, each row as much as it stands for.  Mass on the sink, position 0,
is taken out first: it says nothing of what is read, and on many models it is most of the mass.  A head that puts more than
``SINK_SATURATED`` there is left out.  (A learned sink counts as sink mass but lies in no span; the span that holds position 0
is then understated.)

Instruction focus follows Attention Tracker (Hung et al., arXiv 2411.00348): at the last token of the prompt, before anything is
answered, mass on what instructs (system and user) over mass on what instructs or informs (document and tool as well).  Rows of
the answer are left out, as in the paper: they read documents as they should.  With them an injection moves the mean by 0.6
standard deviations of a request, without them by 2.9 (docs/signals.md).

Cost: one product of [quantities, heads] with [heads, 2] a row, about a tenth of what a row costs in all, and some dozen numbers
a request: nothing that is kept of a request grows with the heads of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES, HISTORY_AGES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS
from headwatch.records import Reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.values import RowValues
    from headwatch.model import RequestContext

_SINK = FEATURES.index("sink_mass")
_KINDS = slice(len(REQUEST_FEATURES), len(REQUEST_FEATURES) + len(SPAN_KINDS))
_INSTRUCTING = ("system", "user")
_INFORMING = ("document", "tool")


@dataclass(frozen=True, slots=True)
class HeadGroups:
    """The groups of heads that are read apart: all, and the calibrated ones where there are any.  One for all requests."""

    members: NDArray[np.float32]  # [L, H, G], 1 where a head is in the group
    retrieval: NDArray[np.bool_] | None
    """[L, H]; None where no map fits the model."""

    @classmethod
    def of(cls, shape: tuple[int, int], retrieval: NDArray[np.bool_] | None) -> HeadGroups:
        """Return the groups of a model of *shape* [layers, heads]; a map of another shape is left aside."""
        fitting = retrieval if retrieval is not None and retrieval.shape == shape else None
        groups = [np.ones(shape, np.float32)]
        if fitting is not None:
            groups.append(fitting.astype(np.float32))
        return cls(np.stack(groups, axis=-1), fitting)


class _Mean:
    """Weighted means of Q quantities for G groups of heads."""

    def __init__(self, groups: int, quantities: int) -> None:
        self.total = np.zeros((quantities, groups))
        self.weight = np.zeros((quantities, groups))

    def add(self, values: NDArray[np.float32], members: NDArray[np.float32], weight: float) -> None:
        """Add *values* [Q, heads], NaN where undefined, of the heads that *members* [heads, G] marks."""
        defined = ~np.isnan(values)
        self.total += np.where(defined, values, np.float32(0.0)) @ members * weight
        self.weight += defined.astype(np.float32) @ members * weight

    def of(self, group: int) -> NDArray[np.float32]:
        """Return the means of *group*, [Q]; NaN where no head of it defined any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.total[:, group] / self.weight[:, group], np.float32)


class ReadingSums:
    """The running sums of one request."""

    def __init__(self, context: RequestContext, groups: HeadGroups) -> None:
        self._prompt_tokens = context.prompt_tokens
        self._calibrated = groups.retrieval is not None
        self._members = groups.members
        self._first_span = next((number for number, span in enumerate(context.spans) if span.start == 0), -1)
        present = {SPAN_KINDS.index(span.kind) for span in context.spans} | {SPAN_KINDS.index("generated")}
        self._kinds = sorted(present)
        """Kinds that the request has, by their place in SPAN_KINDS: the others are undefined and cost nothing."""
        self._first_kind = (
            self._kinds.index(SPAN_KINDS.index(context.spans[self._first_span].kind)) if self._first_span >= 0 else -1
        )
        self._instructing, self._informing = (
            [place for place, kind in enumerate(self._kinds) if SPAN_KINDS[kind] in kinds]
            for kinds in (_INSTRUCTING, _INFORMING)
        )
        self._ages = _ages(context)
        count, size = groups.members.shape[-1], len(self._kinds) + len(context.documents)
        self._prompt_end = _Mean(count, size + 1)  # the last is instruction focus
        self._generated = _Mean(count, size if self._ages is None else size + HISTORY_AGES)
        self._documents = len(context.documents)
        self._seen = False

    def add(self, position: int, values: RowValues, weight: float, places: Places) -> None:
        """Add the row at *position*, which stands for *weight* rows and has the heads at *places*."""
        if position < self._prompt_tokens - 1 or values.mass is None:
            return
        self._seen = True
        members = self._members[places.layers, places.heads].reshape(-1, self._members.shape[-1])
        sink = values.window[_SINK]
        with np.errstate(invalid="ignore", divide="ignore"):
            kinds = values.window[_KINDS][self._kinds]  # [kinds of the request, L, H], a copy
            if self._first_kind >= 0:
                kinds[self._first_kind] = np.maximum(kinds[self._first_kind] - sink, 0.0)
            kinds /= values.rest
        flat = kinds.reshape(len(kinds), -1)
        parts = [flat, values.share.reshape(self._documents, flat.shape[1])]
        if position < self._prompt_tokens:
            self._prompt_end.add(np.concatenate([*parts, self._focus(flat)]), members, weight)
            return
        if self._ages is not None:
            mass = values.mass.copy()
            if self._first_span >= 0:
                mass[self._first_span] = np.maximum(mass[self._first_span] - sink, 0.0)
            with np.errstate(invalid="ignore"):
                parts.append(((self._ages @ mass.reshape(len(mass), -1)) / values.rest.reshape(-1)).astype(np.float32))
        self._generated.add(np.concatenate(parts), members, weight)

    def document_share(self) -> tuple[float | None, ...]:
        """Return for each document its share over all heads; None where undefined."""
        shares = self._generated.of(0)[len(self._kinds) : len(self._kinds) + self._documents]
        return tuple(None if np.isnan(share) else float(share) for share in shares)

    def results(self) -> tuple[Reading | None, Reading | None]:
        """Return where all heads looked, and where the calibrated ones did."""
        if not self._seen:
            return None, None
        return self._result(0), self._result(1) if self._calibrated else None

    def _result(self, group: int) -> Reading:
        generated, prompt_end = self._generated.of(group), self._prompt_end.of(group)
        before, after = len(self._kinds), len(self._kinds) + self._documents
        focus = float(prompt_end[-1])
        return Reading(
            prompt_end=self._by_kind(prompt_end[:before]),
            generated=self._by_kind(generated[:before]),
            history=generated[after:] if self._ages is not None else np.full(HISTORY_AGES, np.nan, np.float32),
            document_share=generated[before:after],
            instruction_focus=None if np.isnan(focus) else focus,
            prompt_end_share=prompt_end[before:after],
        )

    def _by_kind(self, masses: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return *masses* of the kinds of the request as masses of all kinds."""
        found = np.full(len(SPAN_KINDS), np.nan, np.float32)
        found[self._kinds] = masses
        return found

    def _focus(self, kinds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return instruction focus [1, heads] from masses by kind; NaN for a head that looks at neither."""
        instructing = np.nan_to_num(kinds[self._instructing]).sum(0)
        together = instructing + np.nan_to_num(kinds[self._informing]).sum(0)
        defined = (together > 1.0 - SINK_SATURATED) & bool(self._informing)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(defined, instructing / together, np.nan), np.float32)[None]


def _ages(context: RequestContext) -> NDArray[np.float32] | None:
    """Return which span is history of which age, [HISTORY_AGES, spans + 1]; None where none is."""
    ages = np.zeros((HISTORY_AGES, len(context.spans) + 1), np.float32)
    for number, span in enumerate(context.spans):
        if span.kind == "history":
            ages[min(max(span.age, 1), HISTORY_AGES) - 1, number] = 1.0
    return ages if ages.any() else None
