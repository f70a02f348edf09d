"""Captured rows held against reference rows, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.values import SpanTable, values_of
from headwatch.model import FEATURES, REQUEST_FEATURES
from headwatch.verify.reference import Ratio, cross_reference, row_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from headwatch.model import RequestContext
    from headwatch.verify.rules import LayerRule

    Weights = Callable[[int, int], NDArray[np.floating]]
    """Layer and position to attention weights [H, position + 1]."""

COMPARED = (*FEATURES, "span_mass", "document_mass")
"""``document_mass`` is what the sidecar's aggregation makes of a row's span masses and sink mass."""
COMPARED_WITH_ENCODER = (*(name for name in FEATURES if name != "lookback"), "span_mass", "centroid")
"""Of a model that writes down what an encoder hears: nothing in its prompts is a document."""
MIN_DENOMINATOR = 0.01
"""Below it a quotient magnifies rounding, and is not compared."""


@dataclass(frozen=True, slots=True)
class CapturedRow:
    """One sampled row as the worker sent it.  L layers, H heads, S spans."""

    context: RequestContext
    position: int
    layers: tuple[int, ...]
    features: NDArray[np.float32]  # [L, H, len(FEATURES)]
    span_mass: NDArray[np.float32]  # [S + 1, L, H]
    centroid: NDArray[np.float32] | None = None
    """[L, H] where the row is one over an encoder's input, to which its spans belong."""


@dataclass(frozen=True, slots=True)
class Worst:
    """Where the largest error of a feature was seen."""

    request: str
    position: int
    layer: int
    head: int
    captured: float
    expected: float


class Comparison:
    """Errors so far, by feature and by layer."""

    def __init__(self, features: tuple[str, ...] = COMPARED) -> None:
        """Prepare; every one of *features* must be compared at least once."""
        self.max_abs_error = dict.fromkeys(features, 0.0)
        self.compared = dict.fromkeys(features, 0)
        self.undefined_mismatches = dict.fromkeys(features, 0)
        """Values that only one side defines."""
        self.layer_error: dict[int, float] = {}
        self.worst: dict[str, Worst] = {}

    def add(self, name: str, row: CapturedRow, rules: Mapping[int, LayerRule], weights: Weights) -> None:
        """Compare *row* of the request called *name* with what its reference *weights* give."""
        cross = row.centroid is not None
        values = values_of(row.features[None], [row.span_mass], [row.position], [SpanTable(row.context, cross=cross)])
        document_mass = values.window[0, REQUEST_FEATURES.index("document_mass")].astype(np.float64)  # [L, H]
        for place, layer in enumerate(row.layers):
            attention = weights(layer, row.position)
            if row.centroid is not None:
                expected = cross_reference(attention, row.context)
                self._value("centroid", name, row.position, layer, row.centroid[place].astype(np.float64), expected.centroid)
            else:
                first = rules[layer].first_visible(row.position)
                expected = row_reference(attention, row.position, row.context, first)
            features = row.features[place].astype(np.float64)  # [H, F]
            spans = row.span_mass[:, place].astype(np.float64)  # [S + 1, H]
            for index, feature in enumerate(FEATURES):
                self._value(feature, name, row.position, layer, features[:, index], getattr(expected, feature))
            self._value("span_mass", name, row.position, layer, spans, expected.span_mass)
            self._value("document_mass", name, row.position, layer, document_mass[place], expected.document_mass)

    def layers_over(self, bound: float) -> list[int]:
        """Return the layers in which any feature errs by more than *bound*, ascending."""
        return sorted(layer for layer, error in self.layer_error.items() if error > bound)

    def passes(self, bound: float) -> bool:
        """Return whether every feature was compared, errs by at most *bound*, and is undefined in the same places."""
        return (
            all(self.compared[feature] > 0 and error <= bound for feature, error in self.max_abs_error.items())
            and not any(self.undefined_mismatches.values())
        )

    def _value(
        self, feature: str, name: str, position: int, layer: int,
        captured: NDArray[np.float64], expected: NDArray[np.float64] | Ratio,
    ) -> None:
        """Take [..., H] captured and expected values of one feature of one row and layer."""
        if feature not in self.compared:
            return
        counted = np.ones(captured.shape, bool)
        if isinstance(expected, Ratio):
            counted = ~(expected.denominator < MIN_DENOMINATOR)  # an undefined one is NaN, and stays in
            expected = expected.value
        defined = ~np.isnan(expected)
        self.undefined_mismatches[feature] += int((counted & (defined == np.isnan(captured))).sum())
        both = counted & defined & ~np.isnan(captured)
        if not both.any():
            return
        errors = np.where(both, np.abs(captured - expected), 0.0)
        where = np.unravel_index(int(errors.argmax()), errors.shape)
        error = float(errors[where])
        self.compared[feature] += int(both.sum())
        self.layer_error[layer] = max(self.layer_error.get(layer, 0.0), error)
        if feature not in self.worst or error > self.max_abs_error[feature]:
            self.max_abs_error[feature] = error
            self.worst[feature] = Worst(
                name, position, layer, int(where[-1]), float(captured[where]), float(expected[where])
            )

