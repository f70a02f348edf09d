"""How many requests of a front end may be canaries: their rows are summarised whatever the budget says, so somebody must count.

Whoever may send requests may call one a canary.  So they are admitted by a token bucket: 1,024 at once, which is room for
pinning from a hundred runs of the built-in prompts, and one every two seconds for ever.  Of each at most eight rows are
summarised: at a tenth of a millisecond for a row and layer of a 30-layer model, that is 25 s of one core once and 1.2 % of it
from then on, at the very worst.  Beyond it a request is served and is not sampled.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 1024
REFILL_PER_SECOND = 0.5


@dataclass(slots=True)
class Allowance:
    """A token bucket.  Safe from threads."""

    clock: Callable[[], float] = time.monotonic
    left: float = BURST
    _filled_at: float = field(init=False)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._filled_at = self.clock()

    def take(self) -> bool:
        """Return whether one more canary is admitted now, and count it if so."""
        with self._lock:
            now = self.clock()
            self.left = min(BURST, self.left + max(now - self._filled_at, 0.0) * REFILL_PER_SECOND)
            self._filled_at = now
            if self.left < 1.0:
                return False
            self.left -= 1.0
            return True
