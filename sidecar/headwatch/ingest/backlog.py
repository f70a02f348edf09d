"""Frames that have arrived and wait to be aggregated: bounded by bytes.

Where the backlog is full the receiver takes nothing from its socket, so that the workers' own queues fill.  There a frame is
dropped and counted by the worker that sent it, which never waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zmq


_FRAME_BYTES = 512
"""What a frame takes beside its payload."""


class Backlog:
    """First in, first out.  Not safe from threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: deque[zmq.Frame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many frames wait."""
        return len(self._frames)

    @property
    def fill(self) -> float:
        """Return how full it is: 1 is full, and one frame may go beyond."""
        return self._bytes / self._max_bytes

    def append(self, frame: zmq.Frame) -> None:
        """Add *frame*; ask :attr:`fill` first."""
        self._frames.append(frame)
        self._bytes += len(frame) + _FRAME_BYTES

    def pop(self) -> zmq.Frame:
        """Return the oldest frame, which waits no longer.

        Raises:
            IndexError: None waits.
        """
        frame = self._frames.popleft()
        self._bytes -= len(frame) + _FRAME_BYTES
        return frame
