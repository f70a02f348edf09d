"""Texts of prompts out of vLLM's front end, on a thread of their own: only where the operator turned them on.

The request's thread decides by route and by hash whether the text is kept, cuts it, and puts it into a bounded queue; it never
waits, and nothing is redacted here: a pattern that runs away would take the server with it.  So what crosses the wire is plain
text, on loopback alone (:mod:`headwatch.config_file` sees to that).  The sidecar redacts, encrypts and keeps.

The thread encodes and sends over ZeroMQ PUSH.  While no sidecar takes them, at most :data:`QUEUE_TEXTS` texts wait, in
memory, and none for longer than :data:`MOST_SECONDS`: a text must not outlive a purge in here.  The others are dropped.
Each text has a number, dropped ones included: the sidecar counts the gaps.

A prompt that the client gave as token ids is decoded on the thread, from its beginning and no further than is kept: about
0.4 ms for 8,192 characters in 1,600 tokens, under the interpreter's lock and the tokenizer's.  Requests are resolved under
both, so they are let go of every :data:`PIECE_TOKENS` tokens.  One that was given as text costs a slice and a place in the
queue, 12 µs.

Nothing is logged but the names of errors.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

from headwatch.config.text import REDACTION_MARGIN
from headwatch.model import FIELD_REJECTED, TextFrame
from headwatch.sampling import is_text_sampled
from headwatch.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.capture.request.front_end import Reader
    from headwatch.config import TextConfig, WireConfig
    from headwatch.model import RequestContext

logger = logging.getLogger("headwatch.capture")

QUEUE_TEXTS = 64
MOST_SECONDS = 60.0
"""That a text waits."""
PIECE_TOKENS = 2000
"""Decoded at once, about 1 ms."""
_POLL_SECONDS = 0.2
_RESTART_SECONDS = 5.0
_SOCKET_TEXTS = 8
"""Texts that ZeroMQ itself may hold for a connected sidecar."""
_SOURCE_BYTES = 8
_CHARACTER_TOKENS = 4
"""Tokens of one character at most: of a tokenizer that falls back to the bytes of UTF-8."""
_BEFORE_TOKENS = 16
"""Decoded along with each piece, since how a token reads may depend on those before it."""
_PAUSE_SECONDS = 0.0005
"""Between two pieces: a lock that is taken again at once would pass by the thread that waits for it."""
_BROKEN = "\ufffd"


@dataclass(frozen=True, slots=True, repr=False)
class Draft:
    """A text that waits, or the token ids that it is decoded from."""

    sequence: int
    time_ns: int
    taken_seconds: float
    """By the sender's clock."""
    model: str
    context: RequestContext
    limit: int
    text: str | None
    chars: int
    """Of the whole text; of one that is to be decoded, its tokens."""
    ids: Sequence[int]
    reader: Reader | None


class TextSender:
    """Takes texts on the request's thread and sends them on its own.  Nothing here ever raises into vLLM."""

    def __init__(self, config: TextConfig, wire: WireConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._wire = wire
        self._queue: queue.Queue[Draft] = queue.Queue(QUEUE_TEXTS)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._source = ""
        self._sequence = 0
        self.sent = 0
        self.errors: Counter[str] = Counter()
        """Reasons why a text was not sent, with how often."""

    def take(
        self, context: RequestContext, model: str, prompt: Any, ids: Sequence[int] | None, reader: Reader | None
    ) -> None:
        """Queue the text of a sampled request where its route keeps texts, or drop it and count."""
        try:
            self._take(context, model, prompt, ids or (), reader)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM, nor show a text
            self._failed(error)

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Send what waits, as far as the sidecar takes it within *timeout_seconds*, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _take(
        self, context: RequestContext, model: str, prompt: Any, ids: Sequence[int], reader: Reader | None
    ) -> None:
        rule = self._config.rule(context.route)
        if not rule.keep or context.canary or not FIELD_REJECTED.isdisjoint(context.errors):  # then nobody knows the route
            return
        if not is_text_sampled(context, rule.sample_rate):
            return
        limit = rule.max_chars + REDACTION_MARGIN
        text = _text_of(prompt)
        draft = Draft(
            sequence=0,
            time_ns=time.time_ns(),
            taken_seconds=self._clock(),
            model=model,
            context=msgspec.structs.replace(context, spans=[], encoder_spans=[]),
            limit=limit,
            text=None if text is None else text[:limit],
            chars=len(ids) if text is None else len(text),
            ids=() if text is not None else ids[: limit * _CHARACTER_TOKENS],
            reader=reader,
        )
        with self._lock:
            if self._thread is None:  # not before: an earlier thread would not survive a fork of vLLM's
                self._source = os.urandom(_SOURCE_BYTES).hex()
                self._thread = threading.Thread(target=self._run, name="headwatch-texts", daemon=True)
                self._thread.start()
            sequence = self._sequence
            self._sequence += 1
            try:  # in here, so that no number overtakes another
                self._queue.put_nowait(replace(draft, sequence=sequence))
            except queue.Full:
                self.errors["queue_full"] += 1

    def _run(self) -> None:
        while True:
            try:
                with zmq.Context() as zmq_context, zmq_context.socket(zmq.PUSH) as socket:
                    socket.setsockopt(zmq.LINGER, 200)
                    socket.setsockopt(zmq.SNDHWM, _SOCKET_TEXTS)
                    socket.setsockopt(zmq.IMMEDIATE, 1)  # hold nothing for a peer that is not there
                    socket.connect(self._wire.endpoint)
                    self._loop(socket)
            except Exception as error:  # noqa: BLE001 - this thread lives inside vLLM: it counts, and tries again
                self._failed(error)
            if self._stop.is_set() or self._stop.wait(_RESTART_SECONDS):
                return

    def _loop(self, socket: zmq.Socket[bytes]) -> None:
        pending: bytes | None = None
        taken_seconds = 0.0
        while pending is not None or not (self._stop.is_set() and self._queue.empty()):
            if pending is None:
                try:
                    draft = self._queue.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                taken_seconds = draft.taken_seconds
                pending = self._encoded(draft)
            elif self._clock() - taken_seconds > MOST_SECONDS:
                pending = None
                self.errors["too_old"] += 1
            elif socket.poll(int(_POLL_SECONDS * 1000), zmq.POLLOUT):
                try:
                    socket.send(pending, zmq.NOBLOCK)
                except zmq.Again:
                    continue
                pending = None
                self.sent += 1
            elif self._stop.is_set():
                return

    def _encoded(self, draft: Draft) -> bytes | None:
        if self._clock() - draft.taken_seconds > MOST_SECONDS:
            self.errors["too_old"] += 1
            return None
        try:
            payload = codec.encode(_frame(draft, self._source))
        except Exception as error:  # noqa: BLE001 - one bad text must not end the thread, nor be shown
            self._failed(error)
            return None
        if len(payload) > self._wire.max_frame_bytes:
            self.errors["too_large"] += 1
            return None
        return payload

    def _failed(self, error: Exception) -> None:
        reason = type(error).__name__
        self.errors[reason] += 1
        if self.errors[reason] == 1:
            logger.error("headwatch could not send the text of a request: %s; further ones are only counted", reason)


def _text_of(prompt: Any) -> str | None:
    """Return the text of an ``EngineInput`` (vLLM 0.32 inputs/engine.py); None where it has token ids alone."""
    if isinstance(prompt, dict) and prompt.get("type") == "enc_dec":
        prompt = prompt.get("decoder_prompt")
    text = prompt.get("prompt") if isinstance(prompt, dict) else prompt
    return text if isinstance(text, str) else None


def _frame(draft: Draft, source: str) -> TextFrame:
    text, chars = (draft.text, draft.chars) if draft.text is not None else _decoded(draft)
    return TextFrame(
        source=source,
        sequence=draft.sequence,
        time_ns=draft.time_ns,
        model=draft.model,
        context=draft.context,
        kind="prompt",
        text=text.encode("utf-8", "replace").decode(),  # half a surrogate pair is no text that can be sent
        chars=chars,
    )


def _decoded(draft: Draft) -> tuple[str, int]:
    """Return the beginning of what the token ids say, and how long the whole is at least."""
    if draft.reader is None:  # vLLM's skip_tokenizer_init
        raise LookupError
    text, done = "", 0
    while done < len(draft.ids) and len(text) < draft.limit:
        if done:
            time.sleep(_PAUSE_SECONDS)
        with draft.reader.lock:
            piece, done = _piece(draft.reader.tokenizer, draft.ids, done)
        text += piece
    rest = max(draft.chars - done, 0)
    return (text.rstrip(_BROKEN) if rest else text)[: draft.limit], len(text) + rest


def _piece(tokenizer: Any, ids: Sequence[int], done: int) -> tuple[str, int]:
    """Return what the tokens behind the first *done* add to the text, and how many are done then.

    A piece ends where a character does, so that each is read with its first token and its last.
    """
    start, end = max(done - _BEFORE_TOKENS, 0), min(done + PIECE_TOKENS, len(ids))
    before = str(tokenizer.decode(list(ids[start:done]))) if done else ""
    for last in range(end, max(end - _CHARACTER_TOKENS, done), -1):
        after = str(tokenizer.decode(list(ids[start:last])))
        if last == len(ids) or not after.endswith(_BROKEN):
            return after[len(before) :], last
    return str(tokenizer.decode(list(ids[start:end])))[len(before) :], end  # not a character at all
