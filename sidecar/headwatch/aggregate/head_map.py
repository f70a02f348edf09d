"""Head maps: which heads of a model read documents, found by calibration and pinned to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MappedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head and how well it told right from wrong documents (AUROC)."""

    layer: int
    head: int
    score: float


class HeadMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The retrieval heads of one model."""

    version: Literal[1]
    model: str
    """Served model name that the map is for."""
    layers: int
    heads_per_layer: int
    heads: list[MappedHead]
    kind: Literal["retrieval"] = "retrieval"
    model_sha256: str = ""
    provenance: dict[str, Any] = {}

    def mask(self) -> NDArray[np.bool_]:
        """Return [layers, heads] with the mapped heads marked."""
        marked = np.zeros((self.layers, self.heads_per_layer), np.bool_)
        for item in self.heads:
            marked[item.layer, item.head] = True
        return marked


def load_head_map(path: str) -> HeadMap:
    """Return the head map in the file *path*.

    Raises:
        ConfigError: The file cannot be read, is no head map, or names a head that its model does not have.
    """
    try:
        loaded = msgspec.json.decode(Path(path).read_bytes(), type=HeadMap)
    except OSError as error:
        raise ConfigError(f"cannot read head map {path!r}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: no head map: {error}") from error
    for item in loaded.heads:
        if not (0 <= item.layer < loaded.layers and 0 <= item.head < loaded.heads_per_layer):
            raise ConfigError(f"{path}: layer {item.layer} head {item.head} is outside {loaded.layers} layers of "
                              f"{loaded.heads_per_layer} heads")
    return loaded
