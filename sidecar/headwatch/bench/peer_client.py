"""The client process of a peer that copies queries and keys out of the engine: ``python -m headwatch.bench.peer_client``.

It keeps the keys of each request as they arrive, one token a step, and computes the summaries of every sampled row.  What
has arrived while it was busy is taken together: up to :data:`ROWS_TOGETHER` rows of a request share one pass over its
keys, so the slower it is, the cheaper a row becomes.  It never falls behind for good.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
import zmq

from headwatch.bench.peer_messages import Done, Follow, Forget, Shape, Step, ToClient
from headwatch.bench.peer_summary import PromptSpans, from_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ROWS_TOGETHER = 16
SPARE_TOKENS = 1024
_decode = msgspec.json.Decoder(ToClient).decode


@dataclass(slots=True)
class Followed:
    """One request."""

    keys: Tensor  # [L, KV, capacity, D]
    tokens: int
    spans: PromptSpans
    queries: list[Tensor] = field(default_factory=list)
    """Rows that wait to be summarised, each [L, KV, G, D]."""
    positions: list[int] = field(default_factory=list)


class Client:
    """Takes messages, one at a time."""

    def __init__(self) -> None:
        self._shape = Shape(0, 0, 0, 0, 0.0)
        self._requests: dict[str, Followed] = {}
        self.rows = 0
        self._entropy = 0.0

    def take(self, message: ToClient, tensors: Sequence[bytes]) -> Done | None:
        """Take one message with the *tensors* that follow it; return the answer where it wants one."""
        if isinstance(message, Shape):
            self._shape = message
        elif isinstance(message, Follow):
            self._follow(message, tensors[0])
        elif isinstance(message, Step):
            self._step(message, tensors)
        elif isinstance(message, Forget):
            self._requests.clear()
        else:
            self.summarise()
            return Done(self.rows, self._entropy, time.process_time())
        return None

    def summarise(self) -> None:
        """Summarise every row that waits."""
        for followed in self._requests.values():
            while followed.positions:
                positions = followed.positions[:ROWS_TOGETHER]
                queries = torch.stack(followed.queries[:ROWS_TOGETHER], dim=3)  # [L, KV, G, R, D]
                del followed.positions[:ROWS_TOGETHER], followed.queries[:ROWS_TOGETHER]
                keys = followed.keys[:, :, : positions[-1] + 1]
                found = from_queries(queries, keys, positions, followed.spans, self._shape.scale)
                self._entropy = float(found.features[-1, :, :, 0].mean())
                self.rows += len(positions)

    def waiting(self) -> int:
        """Return how many rows of one request wait at most."""
        return max((len(followed.positions) for followed in self._requests.values()), default=0)

    def _follow(self, message: Follow, raw: bytes) -> None:
        shape = self._shape
        keys = torch.empty(shape.layers, shape.kv_heads, message.tokens + SPARE_TOKENS, shape.dim)
        given = np.frombuffer(raw, np.float32).reshape(shape.layers, shape.kv_heads, message.tokens, shape.dim)
        keys[:, :, : message.tokens] = torch.from_numpy(given.copy())
        spans = PromptSpans(tuple(message.span_ends), tuple(message.documents))
        self._requests[message.request] = Followed(keys, message.tokens, spans)

    def _step(self, message: Step, tensors: Sequence[bytes]) -> None:
        shape = self._shape
        batch = len(message.requests)
        keys = torch.from_numpy(_array(tensors[0], shape.layers, batch, shape.kv_heads, shape.dim))
        for place, request in enumerate(message.requests):
            followed = self._requests[request]
            followed.keys[:, :, followed.tokens] = keys[:, place]
            followed.tokens += 1
        if message.sampled:
            queries = torch.from_numpy(_array(tensors[1], shape.layers, batch, shape.kv_heads, shape.group, shape.dim))
            for place, request in enumerate(message.requests):
                followed = self._requests[request]
                followed.queries.append(queries[:, place])
                followed.positions.append(followed.tokens - 1)


def _array(raw: bytes, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.frombuffer(bytearray(raw), np.float32).reshape(shape)


def main(endpoint: str) -> int:
    """Serve the benchmark that connects to *endpoint*, until it sends nothing but an empty message."""
    torch.set_num_threads(1)
    client = Client()
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket, torch.inference_mode():
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        while True:
            # What has arrived is taken in first; summaries are made when nothing waits, or enough rows do.
            if client.waiting() and (client.waiting() >= ROWS_TOGETHER or not socket.poll(0)):
                client.summarise()
                continue
            header, *tensors = socket.recv_multipart()
            if not header:
                return 0
            answer = client.take(_decode(header), tensors)
            if answer is not None:
                socket.send(msgspec.json.encode(answer))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
