"""Where the heads of a frame stand among those of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

import numpy as np


@dataclass(frozen=True, slots=True)
class Places:
    """The heads *heads* of the global *layers*, as what numpy takes for an index.

    Layers in a row are a slice, which costs a view; others are an array, which costs a copy of what it takes.
    """

    layers: NDArray[np.int64] | slice
    heads: slice

    @classmethod
    def of(cls, layers: NDArray[np.int64], heads: slice) -> Self:
        """Return the places of *layers*, ascending, and *heads*."""
        if len(layers) and layers[-1] - layers[0] == len(layers) - 1 and (np.diff(layers) == 1).all():
            return cls(slice(int(layers[0]), int(layers[-1]) + 1), heads)
        return cls(layers, heads)

    def whole(self, shape: tuple[int, int]) -> bool:
        """Return whether these are all the heads of a model of *shape* [layers, heads]."""
        layers, heads = shape
        return isinstance(self.layers, slice) and (self.layers, self.heads) == (slice(0, layers), slice(0, heads))
