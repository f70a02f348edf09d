"""The pager: the operator's one route and its mirrors, each in a lane of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwatch_exporters.paging.lane import Lane
from headwatch_exporters.paging.links import links
from headwatch_exporters.paging.routes import senders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.config import Config
    from headwatch.findings import Incident
    from headwatch.health import PagerHealth
    from headwatch_exporters.paging.page import Outbox

STOP_SECONDS = 12.0
"""A little longer than one attempt may take; what is not sent by then stays in the outbox for the next start."""


class Pager:
    """Runs a lane for each sender that *config* names.

    *outbox* and *open_incidents* are used from several threads.  What waits for a sender that is no longer configured holds up
    nobody: it goes out where that sender is configured again.
    """

    def __init__(self, config: Config, outbox: Outbox, open_incidents: Callable[[], Sequence[Incident]]) -> None:
        """Prepare the senders; no peer is needed yet.

        Raises:
            ConfigError: The route has no address, an address is none, a secret cannot be read, or a library is missing.
        """
        route, mirrors = senders(config.incident)
        made = [(route, True)] if route is not None else []
        self._lanes = [
            Lane(sender, outbox, open_incidents, links(config), pages=pages, retry_seconds=config.incident.retry_seconds)
            for sender, pages in (*made, *((mirror, False) for mirror in mirrors))
        ]

    def start(self) -> None:
        """Start the threads."""
        for lane in self._lanes:
            lane.start()

    def poke(self) -> None:
        """Have the outbox looked at now: something was just written to it."""
        for lane in self._lanes:
            lane.poke()

    def stop(self) -> None:
        """Try once more what is due, and end."""
        for lane in self._lanes:
            lane.tell_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    def health(self) -> dict[str, PagerHealth]:
        """Return what each sender has done so far, by name."""
        return {lane.name: lane.health() for lane in self._lanes}
