"""Where a request's heads looked: by span kind, by age of the history, by document, for all heads and the calibrated ones.

Everything is computed for a row and head and then averaged, each row as much as it stands for.  Mass on the sink, position 0,
is taken out first: it says nothing of what is read, and on many models it is most of the mass.  A head that puts more than
``SINK_SATURATED`` there is left out.  (A learned sink counts as sink mass but lies in no span; the span that holds position 0
is then understated.)

Instruction focus follows Attention Tracker (Hung et al., arXiv 2411.00348): at the last token of the prompt, before anything is
answered, mass on what instructs (system and user) over mass on what instructs or informs (document and tool as well).  Rows of
the answer are left out, as in the paper: they read documents as they should.  With them an injection moves the mean by 0.6
standard deviations of a request, without them by 2.9 (docs/signals.md).

Cost: one product of [rows, quantities, heads] with [heads, 2] a frame, and some dozen numbers a request: nothing that is kept
of a request grows with the heads of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headwatch.aggregate.values import split_undefined
from headwatch.model import FEATURES, HISTORY_AGES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS
from headwatch.native.frames import frames
from headwatch.records import Reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.values import FrameValues
    from headwatch.model import RequestContext

_SINK = FEATURES.index("sink_mass")
_KINDS = len(SPAN_KINDS)
_INSTRUCTING = [SPAN_KINDS.index("system"), SPAN_KINDS.index("user")]
_INFORMING = [SPAN_KINDS.index("document"), SPAN_KINDS.index("tool")]


@dataclass(frozen=True, slots=True)
class HeadGroups:
    """The groups of heads that are read apart: all, and the calibrated ones where there are any.  One for all requests."""

    members: NDArray[np.float32]  # [G, L, H], 1 where a head is in the group
    retrieval: NDArray[np.bool_] | None
    """[L, H]; None where no map fits the model."""

    @classmethod
    def of(cls, shape: tuple[int, int], retrieval: NDArray[np.bool_] | None) -> HeadGroups:
        """Return the groups of a model of *shape* [layers, heads]; a map of another shape is left aside."""
        fitting = retrieval if retrieval is not None and retrieval.shape == shape else None
        groups = [np.ones(shape, np.float32)]
        if fitting is not None:
            groups.append(fitting.astype(np.float32))
        return cls(np.stack(groups), fitting)

    def at(self, places: Places) -> NDArray[np.float32]:
        """Return the members among the heads at *places*, [G, heads]."""
        return self.members[:, places.layers, places.heads].reshape(len(self.members), -1)


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sums over the heads of each of G groups, of Q quantities of R rows."""

    sums: NDArray[np.float32]
    """[R, 2, Q, G]: of the values, and how many heads define them."""

    @classmethod
    def of(cls, values: NDArray[np.float32], members: NDArray[np.float32]) -> GroupSums:
        """Add up *values* [R, Q, heads], NaN where undefined, of the heads that *members* [G, heads] marks."""
        fast = frames()
        if fast is not None:
            return cls(fast.sums(values, np.ascontiguousarray(members)))
        rows, quantities, heads = values.shape
        both = np.empty((rows, 2, quantities, heads), np.float32)
        split_undefined(values, both[:, 0], both[:, 1])
        return cls((both.reshape(-1, heads) @ members.T).reshape(rows, 2, quantities, -1))


class FrameRow(NamedTuple):
    """One row of a frame."""

    frame: FrameValues
    sums: GroupSums | None
    """Of the frame's parts; None at detail 0 and over an encoder's input."""
    row: int
    window: NDArray[np.float32]
    """The values that a window keeps, [F, L, H]."""
    position: int
    weight: float
    """How many rows of its request it stands for."""
    places: Places

    @property
    def kept(self) -> NDArray[np.float32]:
        """Return what a request keeps, [2, len(REQUEST_FEATURES), L, H]: values, 0 where undefined; whether they are not."""
        values = self.window[: len(REQUEST_FEATURES)]
        kept = np.empty((2, *values.shape), np.float32)
        split_undefined(values, kept[0], kept[1])
        return kept


class _Mean:
    """Weighted means of Q quantities for G groups of heads."""

    def __init__(self, groups: int, quantities: int) -> None:
        self._sums = np.zeros((2, quantities, groups))

    def add(self, sums: GroupSums, row: int, weight: float) -> None:
        """Add the *row* of *sums*, which stands for *weight* rows; quantities that this request does not have are left out."""
        fast = frames()
        if fast is not None:
            fast.gather(self._sums, sums.sums, row, weight)
        else:
            self._sums += sums.sums[row, :, : self._sums.shape[1]] * weight

    def of(self, group: int) -> NDArray[np.float32]:
        """Return the means of *group*, [Q]; NaN where no head of it defined any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._sums[0, :, group] / self._sums[1, :, group], np.float32)


class ReadingSums:
    """The running sums of one request."""

    def __init__(self, context: RequestContext, groups: HeadGroups) -> None:
        self._prompt_tokens = context.prompt_tokens
        self._groups = groups
        self._first_span = next((number for number, span in enumerate(context.spans) if span.start == 0), -1)
        self._informed = any(SPAN_KINDS.index(span.kind) in _INFORMING for span in context.spans)
        self._ages = _ages(context)
        count = len(groups.members)
        quantities = _KINDS + len(context.documents)
        self._prompt_end, self._generated = _Mean(count, quantities), _Mean(count, quantities)
        self._focus, self._history = _Mean(count, 1), _Mean(count, HISTORY_AGES)
        self._seen = False

    def add(self, values: FrameRow) -> None:
        """Add a row."""
        frame, sums, row, window, position, weight, places = values
        if position < self._prompt_tokens - 1 or sums is None or frame.parts is None:
            return
        self._seen = True
        if position < self._prompt_tokens:
            self._prompt_end.add(sums, row, weight)
            self._focus.add(GroupSums.of(self._focus_of(frame.parts[row])[None], self._groups.at(places)), 0, weight)
            return
        self._generated.add(sums, row, weight)
        if self._ages is not None:
            mass = frame.masses[row].copy()
            if self._first_span >= 0:
                mass[self._first_span] = np.maximum(mass[self._first_span] - window[_SINK], 0.0)
            with np.errstate(invalid="ignore"):
                ages = ((self._ages @ mass.reshape(len(mass), -1)) / frame.rest[row].reshape(-1)).astype(np.float32)
            self._history.add(GroupSums.of(ages[None], self._groups.at(places)), 0, weight)

    def document_share(self) -> tuple[float | None, ...]:
        """Return for each document its share over all heads; None where undefined."""
        shares = self._generated.of(0)[_KINDS:]
        return tuple(None if np.isnan(share) else float(share) for share in shares)

    def results(self) -> tuple[Reading | None, Reading | None]:
        """Return where all heads looked, and where the calibrated ones did."""
        if not self._seen:
            return None, None
        return self._result(0), self._result(1) if self._groups.retrieval is not None else None

    def _result(self, group: int) -> Reading:
        generated, prompt_end = self._generated.of(group), self._prompt_end.of(group)
        focus = float(self._focus.of(group)[0])
        return Reading(
            prompt_end=prompt_end[:_KINDS],
            generated=generated[:_KINDS],
            history=self._history.of(group),
            document_share=generated[_KINDS:],
            instruction_focus=None if np.isnan(focus) else focus,
            prompt_end_share=prompt_end[_KINDS:],
        )

    def _focus_of(self, parts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return instruction focus [1, heads] from the parts on each kind; NaN for a head that looks at neither."""
        instructing = np.nan_to_num(parts[_INSTRUCTING]).sum(0)
        together = instructing + np.nan_to_num(parts[_INFORMING]).sum(0)
        defined = (together > 1.0 - SINK_SATURATED) & self._informed
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(defined, instructing / together, np.nan), np.float32)[None]


def _ages(context: RequestContext) -> NDArray[np.float32] | None:
    """Return which span is history of which age, [HISTORY_AGES, spans + 1]; None where none is."""
    ages = np.zeros((HISTORY_AGES, len(context.spans) + 1), np.float32)
    for number, span in enumerate(context.spans):
        if span.kind == "history":
            ages[min(max(span.age, 1), HISTORY_AGES) - 1, number] = 1.0
    return ages if ages.any() else None
