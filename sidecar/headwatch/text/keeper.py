"""From the text of a prompt to a sealed row, on one thread of its own: rule, redaction, cut, hook, compression, encryption.

:meth:`TextKeeper.offer` never blocks ingest: a full queue drops the text.  A text with which anything goes wrong is not kept:
each one that is offered ends as kept or as refused, by reason.  Plain text is in memory alone, in this queue and while it is
worked on; no log, message or count shows any of it.  With all built-in patterns a text of 8,192 characters takes about 10 ms.

Redaction comes before the cut, and looks a margin beyond it: a card number that the limit would have cut in half is found.
That holds where the front end cut the text shorter than this side's limit would, too: the margin is what arrived last.

Texts expire by this machine's clock; one whose front end says that it is older expires by that, and never the other way round.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

from headwatch.config.text import REDACTION_MARGIN
from headwatch.errors import TextError
from headwatch.model import FIELD_REJECTED
from headwatch.records import TextRow
from headwatch.sampling import is_text_sampled
from headwatch.text.hook import Hook, HookContext
from headwatch.text.keys import sealing_key
from headwatch.text.redact import redactors
from headwatch.text.seal import Belonging, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwatch.config import TextConfig
    from headwatch.model import TextFrame

logger = logging.getLogger("headwatch.text")

QUEUE_TEXTS = 256
QUEUE_CHARS = 16 * 1024 * 1024
READY_TEXTS = 1024
"""Sealed, and waiting to be handed to the store."""
STOP_SECONDS = 5.0
_MOST_SOURCES = 64
_DAY_NS = 86_400 * 10**9


class TextKeeper:
    """Keeps texts.  :meth:`offer` belongs to ingest's thread, :meth:`take` to the one that hands out deliveries."""

    def __init__(self, config: TextConfig, service: str, environ: Mapping[str, str] | None = None,
                 clock_ns: Callable[[], int] = time.time_ns) -> None:  # fmt: skip
        """Read the key, compile the patterns, load the hook.

        Raises:
            ConfigError: One of them cannot be used.
        """
        self._config = config
        self._service = service
        self._clock_ns = clock_ns
        self._key = sealing_key(config, os.environ if environ is None else environ)
        self._redactor, self._of_routes = redactors(config)
        self._hook = Hook.load(config.hook, config.hook_seconds) if config.hook else None
        self._queue: deque[TextFrame] = deque()
        self._queued_chars = 0
        self._ready: deque[TextRow] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._sources: OrderedDict[str, int] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="headwatch-text", daemon=True)
        if config.default == "none" and not any(route.keep for route in config.routes.values()):
            logger.warning("text.enabled is on, and no route keeps texts (text.default, text.routes)")

    @property
    def counters(self) -> dict[str, int]:
        """Return how many texts were kept, and refused by reason."""
        with self._changed:
            return {"kept": 0, **self._counts}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Work off what waits, for at most :data:`STOP_SECONDS`, and end the thread; :meth:`take` then has the rest."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def offer(self, frame: TextFrame) -> None:
        """Queue *frame*, or drop and count it."""
        with self._changed:
            self._count_lost(frame)
            full = len(self._queue) >= QUEUE_TEXTS or self._queued_chars + len(frame.text) > QUEUE_CHARS
            if full or self._stopping:
                self._counts["refused.queue_full"] += 1
                return
            self._queue.append(frame)
            self._queued_chars += len(frame.text)
            self._changed.notify_all()

    def take(self) -> tuple[TextRow, ...]:
        """Return the sealed texts since the last call."""
        with self._changed:
            rows = tuple(self._ready)
            self._ready.clear()
        return rows

    def _count_lost(self, frame: TextFrame) -> None:
        """Count the texts that vLLM's front end dropped, or that were lost on the way, before *frame*."""
        following = self._sources.pop(frame.source, 0)
        lost = frame.sequence - following
        if following and lost > 0:
            self._counts["refused.lost"] += lost
        self._sources[frame.source] = max(following, frame.sequence + 1)
        if len(self._sources) > _MOST_SOURCES:
            self._sources.popitem(last=False)

    def _run(self) -> None:
        while (frame := self._next()) is not None:
            try:
                row = self.kept(frame)
            except TextError as error:
                self._refused(error.reason, str(error))
            except Exception as error:  # noqa: BLE001 - one text must not end the thread, and no message may show it
                self._refused("unexpected", type(error).__name__)
            else:
                with self._changed:
                    if len(self._ready) < READY_TEXTS:
                        self._ready.append(row)
                        self._counts["kept"] += 1
                    else:
                        self._counts["refused.store_slow"] += 1

    def _next(self) -> TextFrame | None:
        """Return the oldest frame, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            if not self._queue:
                return None
            frame = self._queue.popleft()
            self._queued_chars -= len(frame.text)
            return frame

    def kept(self, frame: TextFrame) -> TextRow:
        """Return the row that *frame* becomes.

        Raises:
            TextError: It is not kept; the reason is one of docs/text-capture.md.
        """
        context = frame.context
        rule = self._config.rule(context.route)
        if context.canary:
            raise TextError("canary", "texts of canaries are not kept")
        if not FIELD_REJECTED.isdisjoint(context.errors):
            raise TextError("route_unknown", "the request's field was rejected, so that nobody knows its route")
        if not rule.keep:
            raise TextError("route", "the route keeps no texts")
        if not is_text_sampled(context, rule.sample_rate):
            raise TextError("sample", "the text is not of the share that is kept")
        now_ns = self._clock_ns()
        expires_ns = min(now_ns, frame.time_ns) + rule.ttl_days * _DAY_NS
        if expires_ns <= now_ns:
            raise TextError("expired", "the text is older than its route keeps any")
        limit = rule.max_chars
        if frame.chars > len(frame.text):
            limit = min(limit, max(len(frame.text) - REDACTION_MARGIN, 0))
        redact = self._of_routes.get(context.route, self._redactor)
        text, redactions = redact(frame.text[: limit + REDACTION_MARGIN], limit)
        text = text[: rule.max_chars]
        if self._hook is not None:
            told = HookContext(self._service, context.route, frame.kind, frame.model, context.language, context.template)
            hooked = self._hook(text, told)
            if hooked is None:
                raise TextError("hook_none", "text.hook keeps nothing of it")
            text = hooked[: rule.max_chars]
        belonging = Belonging(self._service, context.request_id, frame.kind, frame.time_ns)
        return TextRow(
            context=context,
            time_ns=frame.time_ns,
            model=frame.model,
            kind=frame.kind,
            chars=frame.chars,
            kept_chars=len(text),
            redactions=redactions,
            key=self._key.name,
            body=seal(text, self._key, belonging),
            expires_ns=expires_ns,
        )

    def _refused(self, reason: str, said: str) -> None:
        with self._changed:
            self._counts[f"refused.{reason}"] += 1
            first = self._counts[f"refused.{reason}"] == 1
        if first:
            logger.warning("a text is not kept (%s): %s; further ones are only counted", reason, said)
