"""Whether another user of this machine could take the sidecar's place at the endpoint that texts cross."""

from __future__ import annotations

import stat
from pathlib import Path

_IPC = "ipc://"


def open_to_others(endpoint: str) -> bool:
    """Return whether somebody else could listen at *endpoint* while no sidecar does.

    At a port anybody can; at a socket whoever may write to its folder, also with the sticky bit of ``/tmp``, which guards a
    file and not the name before there is one.  The folder's group may be that of vLLM and the sidecar, so only the rights of
    all others count.
    """
    if not endpoint.startswith(_IPC):
        return True
    try:
        mode = Path(endpoint.removeprefix(_IPC)).parent.stat().st_mode
    except OSError:  # without the folder there is no socket: opening it says so
        return False
    return bool(mode & stat.S_IWOTH)
