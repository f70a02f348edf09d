"""The first question of drivers that speak the native protocol inside HTTP (clickhouse-go, and so Grafana's data source).

They announce a version with ``client_protocol_version``, and read the first answer as that version has it: block information,
and a byte after each column's type.  chDB writes plain Native.  So this one answer is made by hand, and says revision 0: they
then read everything else as plain Native (clickhouse-go 2.47).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.http.catalog import Catalog

QUESTION = "SELECT displayName(), version(), revision(), timezone()"
DISPLAY_NAME = "headwatch"
KIND = "application/octet-stream"
HEADERS = {"X-ClickHouse-Format": "Native"}
_WITH_BLOCK_INFORMATION = 51903
_WITH_SERIALIZATION_KIND = 54454
_BLOCK_INFORMATION = b"\x01\x00\x02" + struct.pack("<i", -1) + b"\x00"


def answer(catalog: Catalog, protocol_version: int) -> bytes:
    """Return the answer to the :data:`QUESTION` as one block of Native, as *protocol_version* has it."""
    columns = [
        ("displayName()", "String", _text(DISPLAY_NAME)),
        ("version()", "String", _text(catalog.version)),
        ("revision()", "UInt32", struct.pack("<I", 0)),
        ("timezone()", "String", _text(catalog.timezone)),
    ]
    kind_byte = b"\x00" if protocol_version >= _WITH_SERIALIZATION_KIND else b""
    head = _BLOCK_INFORMATION if protocol_version >= _WITH_BLOCK_INFORMATION else b""
    return head + bytes((len(columns), 1)) + b"".join(
        _text(name) + _text(kind) + kind_byte + data for name, kind, data in columns
    )  # fmt: skip


def _text(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data
