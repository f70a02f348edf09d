"""The operator's own function over each redacted text: ``hook(text, context)`` returns what to keep, or None to keep nothing.

It runs in the sidecar with the sidecar's rights, on a thread of its own for each text, since nothing ends a function that
hangs.  One that takes too long is left behind and its text is not kept; with :data:`MOST_STUCK` of them no text is kept until
one returns.  What it raises is counted and never shown: the message of an exception may hold the text.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.errors import ConfigError, TextError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_STUCK = 4


@dataclass(frozen=True, slots=True)
class HookContext:
    """What a hook is told of a text."""

    service: str
    route: str
    kind: str
    model: str
    language: str
    template: str


class Hook:
    """Calls the function, for one text at a time."""

    def __init__(self, function: Callable[[str, HookContext], object], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._stuck: list[threading.Thread] = []

    @classmethod
    def load(cls, name: str, seconds: float) -> Hook:
        """Return the hook ``module:function``.

        Raises:
            ConfigError: There is no such function, or its module cannot be imported.
        """
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the module is the operator's: whatever it raises, it is no hook
            raise ConfigError(f"text.hook {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
        if not callable(function):
            raise ConfigError(f"text.hook {name!r} is no function")
        return cls(function, seconds)

    def __call__(self, text: str, context: HookContext) -> str | None:
        """Return what to keep of *text*.

        Raises:
            TextError: With reason ``hook_error``, ``hook_type``, ``hook_timeout`` or ``hook_stuck``.
        """
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= MOST_STUCK:
            raise TextError("hook_stuck", f"text.hook: {len(self._stuck)} calls have not come back")
        call = _Call(self._function, text, context)
        thread = threading.Thread(target=call.run, name="headwatch-text-hook", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            self._stuck.append(thread)
            raise TextError("hook_timeout", f"text.hook took longer than {self._seconds:g} s")
        if call.error:
            raise TextError("hook_error", f"text.hook raised {call.error}")
        if call.result is not None and not isinstance(call.result, str):
            raise TextError("hook_type", f"text.hook returned {type(call.result).__name__}, and not a text or None")
        return call.result


class _Call:
    """One call and what came of it."""

    def __init__(self, function: Callable[[str, HookContext], object], text: str, context: HookContext) -> None:
        self._function, self._text, self._context = function, text, context
        self.result: object = None
        self.error = ""

    def run(self) -> None:
        try:
            self.result = self._function(self._text, self._context)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a library, too, is only a text that is not kept
            self.error = type(error).__name__
