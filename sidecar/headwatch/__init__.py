"""headwatch: attention observability for LLM inference servers.

Importing this package costs a few milliseconds and loads neither numpy, torch nor OpenTelemetry: it is imported by
every process of vLLM and by clients that only want :func:`request_field`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.client import request_field

__all__ = ["__version__", "request_field"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load :func:`request_field` on first use (PEP 562)."""
    if name == "request_field":
        from headwatch.client import request_field  # noqa: PLC0415 - lazy on purpose: keeps the import cold

        return request_field
    raise AttributeError(f"module 'headwatch' has no attribute {name!r}")
