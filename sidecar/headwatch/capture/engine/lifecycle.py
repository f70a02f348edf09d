"""What happens to an engine while it runs: its weights are replaced, it goes to sleep and wakes up.

New weights are a new model: what a layer has proved before says nothing of it, and its numbers may not be compared with
those of the old one.  So every layer earns its trust again, and the revision in the worker's identity, which is part of
every stratum, gets a number.  Asleep, nothing is captured, and the status says so.

The engine calls these methods by name on the worker (vLLM 0.32 ``collective_rpc``), so they are wrapped on the instance.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.worker import Capture

NEW_WEIGHTS = ("reload_weights", "finish_weight_update")
"""After these the model is another one."""
SLEEP, WAKE = "sleep", "wake_up"


def install(capture: Capture, worker: Any) -> None:
    """Watch the *worker* of *capture*.  A method that this engine does not have is left out."""
    for name in NEW_WEIGHTS:
        _after(worker, name, capture.weights_replaced)
    _after(worker, SLEEP, capture.fall_asleep)
    _after(worker, WAKE, capture.awake)


def _after(worker: Any, name: str, then: Callable[[], None]) -> None:
    original = getattr(worker, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        then()
        return result

    setattr(worker, name, called)
