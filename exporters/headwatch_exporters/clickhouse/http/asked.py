"""A request as a client of ClickHouse's HTTP interface makes it: what is its query, and what is about the transport."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http import blocks, encoding
from headwatch_exporters.clickhouse.http.names import names
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRANSPORT = names("""
    buffer_size client_protocol_version close_session compress database decompress default_format enable_http_compression
    http_response_buffer_size http_wait_end_of_query password query query_id quota_key send_progress_in_http_headers
    session_check session_id session_timeout stacktrace user wait_end_of_query
""")
_PARAMETER = "param_"
_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    query: str
    query_id: str
    parameters: dict[str, str] = field(default_factory=dict)
    """Of the query, as ClickHouse writes values over HTTP."""
    settings: dict[str, str] = field(default_factory=dict)
    database: str = ""
    default_format: str = ""
    session_id: str = ""
    session_timeout: str = ""
    session_check: bool = False
    close_session: bool = False
    accept_encoding: str = ""
    """Empty where the client did not ask for compression with ``enable_http_compression``."""
    compress: bool = False
    wait_end: bool = False
    progress: bool = False
    protocol_version: int = 0


def read_request(url: Mapping[str, str], headers: Mapping[str, str], body: bytes, most_bytes: int) -> Asked:
    """Return what is asked with the parameters of *url*, *headers* (in lower case) and *body*.

    Raises:
        QueryError: It cannot be read, or the query is longer than *most_bytes*.
    """
    if headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise QueryError("NOT_IMPLEMENTED", "multipart/form-data is not taken; put parameters into the URL")
    plain = encoding.unpack(body, headers.get("content-encoding", ""), most_bytes)
    if _on(url, "decompress"):
        plain = blocks.unpack(plain, most_bytes)
    query = "\n".join(part for part in (url.get("query", ""), _text(plain)) if part)
    if len(query.encode("utf-8", "replace")) > most_bytes:
        raise QueryError("QUERY_IS_TOO_LARGE", f"the query is longer than {most_bytes} bytes")
    if "\0" in query or any("\0" in value for value in url.values()):
        raise QueryError("SYNTAX_ERROR", "there is a zero byte in the query or a parameter; write \\0")
    return Asked(
        query=query,
        query_id=_query_id(url.get("query_id") or headers.get("x-clickhouse-query-id", "")),
        parameters={name.removeprefix(_PARAMETER): value for name, value in url.items() if name.startswith(_PARAMETER)},
        settings={
            name: value for name, value in url.items() if name not in _TRANSPORT and not name.startswith(_PARAMETER)
        },
        database=url.get("database") or headers.get("x-clickhouse-database", ""),
        default_format=headers.get("x-clickhouse-format") or url.get("default_format", ""),
        session_id=_session_id(url.get("session_id", "")),
        session_timeout=url.get("session_timeout", ""),
        session_check=_on(url, "session_check"),
        close_session=_on(url, "close_session"),
        accept_encoding=headers.get("accept-encoding", "") if _on(url, "enable_http_compression") else "",
        compress=_on(url, "compress"),
        wait_end=_on(url, "wait_end_of_query") or _on(url, "http_wait_end_of_query"),
        progress=_on(url, "send_progress_in_http_headers"),
        protocol_version=_number(url.get("client_protocol_version", "0")),
    )  # fmt: skip


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise QueryError("BAD_ARGUMENTS", "the query is not UTF-8; write other bytes with unhex()") from error


def _on(url: Mapping[str, str], name: str) -> bool:
    return url.get(name, "0").lower() in {"1", "true"}


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - digits of a 32 bit number
        return int(text)
    raise QueryError("BAD_ARGUMENTS", f"client_protocol_version={text[:32]!r} is no number")


def _query_id(text: str) -> str:
    """Return *text*, or a new id: it stands in headers, so it may hold nothing that ends one."""
    if text and not _ID.fullmatch(text):
        raise QueryError("BAD_ARGUMENTS", "a query_id has at most 128 printable ASCII characters and no space")
    return text or str(uuid.uuid4())


def _session_id(text: str) -> str:
    if len(text) > 128:  # noqa: PLR2004 - as of a query
        raise QueryError("BAD_ARGUMENTS", "a session_id has at most 128 characters")
    return text
