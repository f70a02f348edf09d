"""The other peer: ``transformers``, asked for its attention weights.  ``python -m headwatch.bench.peer_attentions``.

Only the eager attention of transformers returns weights, so asking for them gives up the fused kernel.  To be fair to it,
the prompt is prefilled with the fused kernel and without weights, and the loop is a bare one, cheaper than ``generate``:
what is compared is decoding with eager attention and summaries against decoding with the fused kernel and none.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import msgspec
import torch
import zmq

from headwatch.bench.peer_messages import Generate, Ready, ToModel, Turn, TurnDone
from headwatch.bench.peer_summary import PromptSpans, from_weights

_decode = msgspec.json.Decoder(ToModel).decode


class Decoder:
    """A model and the batch that it is decoding."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        ).eval()
        self._cache: Any = None
        self._tokens = torch.empty(0)
        self._position = 0
        self._spans: list[PromptSpans] = []
        self.rows = 0

    def generate(self, message: Generate) -> Ready:
        """Prefill."""
        shortest = min(map(len, message.prompts))  # a token more or less is no matter; padding would be
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([prompt[-shortest:] for prompt in message.prompts]), use_cache=True, logits_to_keep=1
            )
        self._cache = output.past_key_values
        self._tokens = output.logits[:, -1].argmax(-1, keepdim=True)
        self._position = shortest
        self._spans = [
            PromptSpans(tuple(min(end, shortest) for end in ends), tuple(flags))
            for ends, flags in zip(message.span_ends, message.documents, strict=True)
        ]
        return Ready(shortest)

    def turn(self, message: Turn) -> TurnDone:
        """Decode some steps; every ``stride``-th with attention weights, summarised at once."""
        rows = self.rows
        started = time.perf_counter()
        with torch.inference_mode():
            for step in range(message.steps):
                self._step(sampled=message.stride > 0 and step % message.stride == 0)
        return TurnDone(time.perf_counter() - started, self.rows - rows)

    def _step(self, *, sampled: bool) -> None:
        kind = "eager" if sampled else "sdpa"
        if self._model.config._attn_implementation != kind:  # noqa: SLF001 - there is no public way to ask
            self._model.set_attn_implementation(kind)
        output = self._model(
            input_ids=self._tokens, past_key_values=self._cache, use_cache=True, output_attentions=sampled
        )
        self._tokens = output.logits[:, -1].argmax(-1, keepdim=True)
        if sampled:
            weights = torch.stack(output.attentions)  # [L, B, H, 1, n]
            for place, spans in enumerate(self._spans):
                from_weights(weights[:, place], [self._position], spans)
                self.rows += 1
        self._position += 1


def main(endpoint: str, folder: str) -> int:
    """Serve the benchmark that connects to *endpoint*, until it sends an empty message."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the engine leaves one to others; this has all of them
    decoder = Decoder(folder)
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        while header := socket.recv():
            message = _decode(header)
            answer = decoder.generate(message) if isinstance(message, Generate) else decoder.turn(message)
            socket.send(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
