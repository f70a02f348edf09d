"""Where the heads of a frame stand among those of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Places:
    """The heads *heads* of the global *layers*, as what numpy takes for an index.

    Layers in a row are a slice, which costs a view; others are an array, which costs a copy of what it takes.
    """

    layers: NDArray[np.int64] | slice
    heads: slice

    @classmethod
    def of(cls, layers: Sequence[int], heads: slice) -> Self:
        """Return the places of *layers*, ascending, and *heads*."""
        if layers and list(layers) == list(range(layers[0], layers[-1] + 1)):
            return cls(slice(layers[0], layers[-1] + 1), heads)
        return cls(np.asarray(layers, np.int64), heads)

    def whole(self, shape: tuple[int, int]) -> bool:
        """Return whether these are all the heads of a model of *shape* [layers, heads]."""
        layers, heads = shape
        return isinstance(self.layers, slice) and (self.layers, self.heads) == (slice(0, layers), slice(0, heads))
