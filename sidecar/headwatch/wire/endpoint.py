"""Is a ZeroMQ endpoint already listened on.

libzmq binds an ``ipc://`` path that another process listens on without an error: it unlinks the socket file and takes the
other's place, whose peers then reconnect to the newcomer.  So whoever binds asks first.
"""

from __future__ import annotations

import contextlib
import socket

CONNECT_SECONDS = 2.0
_EVERY_ADDRESS = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1"}  # noqa: S104 - compared, never bound


def listens(endpoint: str) -> bool | None:
    """Return whether something accepts connections on *endpoint*; None where that cannot be told (``inproc://``)."""
    scheme, _, address = endpoint.partition("://")
    family: int
    target: str | tuple[str, int]
    if scheme == "ipc":
        family, target = socket.AF_UNIX, f"\0{address[1:]}" if address.startswith("@") else address
    elif scheme == "tcp" and address.rpartition(":")[2].isdigit():
        host, _, port = address.rpartition(":")
        host = _EVERY_ADDRESS.get(host, host.strip("[]"))
        family, target = (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))
    else:
        return None
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(target)
        except OSError:
            return False
    return True
