"""Where the heads of a frame stand among those of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Places:
    """The heads *heads* of the global *layers*, as what numpy takes for an index.

    Layers in a row are a slice, which costs a view; others are an array, which costs a copy of what it takes.
    """

    layers: NDArray[np.int64] | slice
    heads: slice
    whole: bool = False
    """Whether these are all the heads of the model."""


@lru_cache(maxsize=64)
def places_of(layers: tuple[int, ...], first_head: int, heads: int, shape: tuple[int, int]) -> Places:
    """Return the places of *layers*, ascending, and *heads* from *first_head* on, in a model of *shape* [layers, heads]."""
    taken = slice(first_head, first_head + heads)
    if layers and layers == tuple(range(layers[0], layers[-1] + 1)):
        run = slice(layers[0], layers[-1] + 1)
        return Places(run, taken, (run, taken) == (slice(0, shape[0]), slice(0, shape[1])))
    return Places(np.asarray(layers, np.int64), taken)
