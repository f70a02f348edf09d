"""Errors as a ClickHouse server words them: a number, a name, and the HTTP status that its clients expect with it.

Numbers are those of ``src/Common/ErrorCodes.cpp``, statuses those of ``src/Server/HTTP/exceptionCodeToHTTPStatus.cpp``: drivers
decide by them whether to retry, to ask for a password, or to show a syntax error.
"""

from __future__ import annotations

import re

from headwatch.errors import StoreError

CODES = {
    "CANNOT_PARSE_TEXT": 6,
    "BAD_ARGUMENTS": 36,
    "CHECKSUM_DOESNT_MATCH": 40,
    "UNKNOWN_FUNCTION": 46,
    "NOT_IMPLEMENTED": 48,
    "UNKNOWN_TABLE": 60,
    "SYNTAX_ERROR": 62,
    "UNKNOWN_FORMAT": 73,
    "UNKNOWN_DATABASE": 81,
    "INTO_OUTFILE_NOT_ALLOWED": 82,
    "UNKNOWN_COMPRESSION_METHOD": 89,
    "TIMEOUT_EXCEEDED": 159,
    "READONLY": 164,
    "REQUIRED_PASSWORD": 194,
    "TOO_MANY_SIMULTANEOUS_QUERIES": 202,
    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING": 216,
    "QUERY_IS_TOO_LARGE": 223,
    "CANNOT_DECOMPRESS": 271,
    "TOO_DEEP_RECURSION": 306,
    "SESSION_NOT_FOUND": 372,
    "SESSION_IS_LOCKED": 373,
    "INVALID_SESSION_TIMEOUT": 374,
    "QUERY_WAS_CANCELLED": 394,
    "TOO_MANY_ROWS_OR_BYTES": 396,
    "SETTING_CONSTRAINT_VIOLATION": 452,
    "UNKNOWN_QUERY_PARAMETER": 456,
    "ACCESS_DENIED": 497,
    "AUTHENTICATION_FAILED": 516,
    "UNKNOWN_EXCEPTION": 1002,
}

_STATUS = {
    400: (6, 25, 26, 27, 36, 38, 41, 43, 53, 62, 72, 117, 167, 168, 291, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 497, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 181, 372),
    408: (159,),
    413: (223,),
    501: (48,),
    503: (202, 209),
}
"""By HTTP status, the codes that have it; any other code is 500."""
_STATUS_OF = {code: status for status, codes in _STATUS.items() for code in codes}

_NAMES = {code: name for name, code in CODES.items()}
_WORDED = re.compile(r"(?s)^.*?Code: (\d+)\. DB::Exception: (?:Code: \d+\. DB::Exception: )*(.*?)\s*$")
_VERSION = re.compile(r" \(version [^()]*(?:\([^()]*\))?\)\.?(?= \(|$)")
_NAME = re.compile(r"^(?s:(.*?))((?: \([A-Z0-9_]+\)\.?)+)$")
MAX_CHARACTERS = 4096


class QueryError(StoreError):
    """What a client asked is refused, or failed."""

    def __init__(self, name: str, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.name = name
        self.code = CODES[name] if code is None else code
        self.text = text[:MAX_CHARACTERS]
        self.reason = name.lower()

    @property
    def status(self) -> int:
        """Return the HTTP status that a server sends with this code."""
        return _STATUS_OF.get(self.code, 500)

    def body(self, version: str) -> bytes:
        """Return the text of the answer, as a server of *version* words it."""
        return f"Code: {self.code}. DB::Exception: {self.text} ({self.name}) (version {version})\n".encode(
            "utf-8", "replace"
        )


def from_engine(message: str) -> QueryError:
    """Return what chDB said, taken apart: ``Code: 62. DB::Exception: Syntax error … (SYNTAX_ERROR)``."""
    found = _WORDED.match(message)
    if found is None:
        return QueryError("UNKNOWN_EXCEPTION", message.strip() or "the engine failed and did not say why")
    text = _VERSION.sub("", found[2])
    named = _NAME.match(text)
    if named is None:
        return QueryError(_NAMES.get(int(found[1]), "UNKNOWN_EXCEPTION"), text, int(found[1]))  # a zero byte cuts it
    return QueryError(named[2].strip().split(" ")[-1].strip("()."), named[1].rstrip(), int(found[1]))
