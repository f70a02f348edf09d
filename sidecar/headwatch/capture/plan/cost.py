"""What a row will cost, learnt from what rows have cost: seconds a row and layer, and seconds a kilotoken that it reads.

The two terms are positive and corrected by factors: when a step cost r times what was predicted, each term takes the
blame in proportion to its part of the prediction.  One wild step (a compilation, a thread that lost its core) moves the
model by at most a factor :data:`_LARGEST`, and mixtures of short and long contexts tell the terms apart.

Cost: about two microseconds a step.
"""

from __future__ import annotations

_ROW_SECONDS = 100e-6
_KILOTOKEN_SECONDS = 100e-6
"""Where nothing is known yet: about what the torch kernel takes on two cores."""
_LARGEST = 4.0
_GAIN = 0.2
"""Share of a step's surprise that is believed, once a few steps were seen."""


class CostModel:
    """Predicts the seconds of summarising rows in one layer.  Not safe from threads."""

    def __init__(self) -> None:
        self.row_seconds = _ROW_SECONDS
        self.kilotoken_seconds = _KILOTOKEN_SECONDS
        self._learnt = 0

    def row(self, tokens: int) -> float:
        """Return the seconds of one layer for a row that sees *tokens* positions."""
        return self.row_seconds + self.kilotoken_seconds * 1e-3 * tokens

    def learn(self, rows: int, tokens: int, layers: float, seconds: float) -> None:
        """Take that *rows* rows that saw *tokens* positions together cost *seconds* over *layers* layers."""
        fixed = layers * rows * self.row_seconds
        predicted = fixed + layers * tokens * 1e-3 * self.kilotoken_seconds
        if predicted <= 0.0 or seconds <= 0.0:
            return
        ratio = min(max(seconds / predicted, 1.0 / _LARGEST), _LARGEST)
        gain = max(_GAIN, 1.0 / (1 + self._learnt))
        self._learnt += 1
        part = fixed / predicted
        # The sum of squared parts would be below 1 where both terms count; dividing by it keeps the whole correction.
        gain /= part**2 + (1.0 - part) ** 2
        self.row_seconds *= ratio ** (gain * part)
        self.kilotoken_seconds *= ratio ** (gain * (1.0 - part))
