"""Head maps: what each head of a model does, found by calibration and pinned to the model's weights.

Version 2 has a score with its interval for every head that was measured, and the classes that follow from them.  Version
1, a bare list of retrieval heads, is still read: it becomes a map that knows of nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HeadClass = Literal["retrieval", "induction", "local", "sink"]
Probe = Literal["documents", "needle", "induction", "local", "sink"]


class Score(msgspec.Struct, frozen=True, array_like=True):
    """A score and the ends of its 95 % interval: ``[value, low, high]``."""

    value: float
    low: float | None = None
    high: float | None = None


class MappedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head: the classes that it belongs to and its score in each probe."""

    layer: int
    head: int
    classes: tuple[HeadClass, ...]
    scores: dict[Probe, Score]


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well right documents are told from wrong ones, request by request, on questions that chose no head."""

    questions: int
    """Each was asked once with right and once with wrong documents."""
    auroc: dict[str, Score]
    """By what was looked at: ``retrieval_heads``, ``all_heads``, and the controls ``prompt_tokens`` and
    ``answer_probability``."""


class HeadMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The heads of one model."""

    version: Literal[2]
    model: str
    """Served model name that the map is for."""
    layers: int
    heads_per_layer: int
    heads: tuple[MappedHead, ...]
    """Every head that was measured, by layer and head."""
    model_sha256: str = ""
    """Hash of the weights that were probed: what ``sha256sum *.safetensors | sha256sum`` prints in their folder."""
    evaluation: Evaluation | None = None
    provenance: dict[str, Any] = {}

    def members(self, kind: HeadClass) -> tuple[tuple[int, int], ...]:
        """Return (layer, head) of every head of the class *kind*."""
        return tuple((item.layer, item.head) for item in self.heads if kind in item.classes)

    def mask(self, kind: HeadClass = "retrieval") -> NDArray[np.bool_]:
        """Return [layers, heads] with the heads of the class *kind* marked."""
        marked = np.zeros((self.layers, self.heads_per_layer), np.bool_)
        for layer, head in self.members(kind):
            marked[layer, head] = True
        return marked


class _FirstHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layer: int
    head: int
    score: float


class _FirstMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Version 1: the retrieval heads alone."""

    version: Literal[1]
    model: str
    layers: int
    heads_per_layer: int
    heads: list[_FirstHead]
    kind: Literal["retrieval"] = "retrieval"
    model_sha256: str = ""
    provenance: dict[str, Any] = {}

    def upgraded(self) -> HeadMap:
        """Return the map as one of version 2.

        The hash is left out: version 1 took that of one file, which is another number.
        """
        heads = tuple(
            MappedHead(item.layer, item.head, ("retrieval",), {"documents": Score(item.score)}) for item in self.heads
        )
        return HeadMap(2, self.model, self.layers, self.heads_per_layer, heads, provenance=self.provenance)


class _Version(msgspec.Struct, frozen=True):
    version: int


def load_head_map(path: str) -> HeadMap:
    """Return the head map in the file *path*.

    Raises:
        ConfigError: The file cannot be read, is no head map, or names a head that its model does not have.
    """
    try:
        content = Path(path).read_bytes()
        if msgspec.json.decode(content, type=_Version).version == 1:
            loaded = msgspec.json.decode(content, type=_FirstMap).upgraded()
        else:
            loaded = msgspec.json.decode(content, type=HeadMap)
    except OSError as error:
        raise ConfigError(f"cannot read head map {path!r}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: no head map: {error}") from error
    for item in loaded.heads:
        if not (0 <= item.layer < loaded.layers and 0 <= item.head < loaded.heads_per_layer):
            raise ConfigError(f"{path}: layer {item.layer} head {item.head} is outside {loaded.layers} layers of "
                              f"{loaded.heads_per_layer} heads")
    return loaded


def encode_head_map(head_map: HeadMap) -> bytes:
    """Return *head_map* as JSON that people can read and compare: one line for each head."""
    heads = [b"    " + msgspec.json.encode(item) for item in head_map.heads]
    frame = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(head_map, heads=())), indent=2)
    before, _, after = frame.partition(b'"heads": []')
    listed = b"[\n" + b",\n".join(heads) + b"\n  ]" if heads else b"[]"
    return before + b'"heads": ' + listed + after + b"\n"
