"""What the benchmark of peers says to its child processes, as JSON; tensors follow as raw bytes."""

from __future__ import annotations

import msgspec


class Follow(msgspec.Struct, frozen=True, tag="follow"):
    """A request begins: its keys so far follow, [L, KV, n, D] float32."""

    request: str
    tokens: int
    """n; more will come, one in each step."""
    span_ends: list[int]
    documents: list[bool]


class Shape(msgspec.Struct, frozen=True, tag="shape"):
    """What tensors of this model look like; said once."""

    layers: int
    kv_heads: int
    group: int
    """Query heads that share one key-value head."""
    dim: int
    scale: float


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step: the new keys [L, B, KV, D] follow, and where it is sampled the queries [L, B, KV, G, D]."""

    requests: list[str]
    sampled: bool


class Flush(msgspec.Struct, frozen=True, tag="flush"):
    """Answer with :class:`Done` once everything before has been summarised."""


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Every request has ended."""


class Done(msgspec.Struct, frozen=True):
    """An answer."""

    rows: int
    """Rows summarised since the start."""
    entropy: float
    """Mean of the last row's entropies: what a caller can hold against its own."""
    seconds: float
    """Processor time of the child since the start."""


ToClient = Shape | Follow | Step | Flush | Forget


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Prefill these prompts, all of one length, and keep the cache."""

    prompts: list[list[int]]
    span_ends: list[list[int]]
    documents: list[list[bool]]


class Turn(msgspec.Struct, frozen=True, tag="turn"):
    """Decode so many steps; summarise every row of each step that *stride* divides; 0: no attention is asked for."""

    steps: int
    stride: int


class TurnDone(msgspec.Struct, frozen=True):
    """An answer to :class:`Turn`."""

    seconds: float
    rows: int


class Ready(msgspec.Struct, frozen=True):
    """An answer to :class:`Generate`."""

    tokens: int


ToModel = Generate | Turn
