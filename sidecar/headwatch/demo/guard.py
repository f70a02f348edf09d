"""A guard between the demo and each of its servers, so that none outlives it.

``python guard.py PARENT_PID GRACE_SECONDS COMMAND…`` runs *COMMAND* in a session of its own and ends with its exit code.
It ends the command and everything that descends from it when it is told to (SIGTERM, SIGINT, SIGHUP), when the command
ends by itself, and when the demo dies, even by SIGKILL: the kernel then sends it SIGTERM (``PR_SET_PDEATHSIG``).  Orphans
of the command, such as an engine core whose API server was killed, become the guard's children
(``PR_SET_CHILD_SUBREAPER``), so it finds them whatever session they have moved to.

Linux only; standard library only, since it is started by path and must start at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05


class _Told(Exception):  # noqa: N818 - a request to stop is no error
    """A signal asked the guard to stop."""


def main(arguments: list[str]) -> int:
    """Run the command of *arguments* (see the module) and return its exit code; 128 + n where signal n ended it."""
    parent, grace_seconds, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    for number in signals:
        signal.signal(number, _tell)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # the demo died before the kernel knew that we want to be told
        return 1
    code = 1
    try:
        child = subprocess.Popen(command, preexec_fn=_die_with_guard)  # noqa: PLW1509, S603 - one thread; our own command
        code = child.wait()
    except _Told:
        pass
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        end_descendants(grace_seconds)
    return code if code >= 0 else 128 - code


def end_descendants(grace_seconds: float) -> None:
    """Send SIGTERM to every descendant, and SIGKILL to what is left after *grace_seconds*; return when none is left.

    Whether any is left only ``waitpid`` can tell: the kernel's lists of children may leave some out while others end.
    """
    for pid in descendants():
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while _children_left():
        if time.monotonic() > deadline:
            for pid in descendants():
                _signal(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def descendants() -> list[int]:
    """Return the ids of all processes below this one, as far as the kernel lists them."""
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        pid = queue.pop()
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                below = [int(word) for word in children.read_text().split()]
                found += below
                queue += below
    return found


def _children_left() -> bool:
    """Take leave of the children that have ended; return whether there are others.  Orphans below are children too."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _tell(_number: int, _frame: object) -> None:
    raise _Told


def _die_with_guard() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
