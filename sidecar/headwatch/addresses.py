"""Addresses of hosts and stores: whether they leave this machine, and how they may be shown."""

from __future__ import annotations

import ipaddress
import re


def mask_url(url: str) -> str:
    """Return *url* with its password replaced by ``***``, be it before the host or a query parameter."""
    url = re.sub(r"(?i)([?&](?:password|token|access_token)=)[^&#]*", r"\1***", url)
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if not at:
        return url
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}@{host}"


def is_loopback(endpoint: str) -> bool:
    """Return whether a host, or a ZeroMQ endpoint, can only be reached from this machine."""
    scheme, separator, rest = endpoint.partition("://")
    if separator and scheme in {"ipc", "inproc"}:
        return True
    host = rest.rpartition(":")[0] if separator else endpoint
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: 127.example.org may lead anywhere
        return False
