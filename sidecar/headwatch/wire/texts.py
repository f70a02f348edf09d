"""The bounds of a text frame: whatever passes :func:`checked` can be redacted, sealed and stored without a further thought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.config.text import LARGEST_CHARS, REDACTION_MARGIN
from headwatch.errors import WireError
from headwatch.wire.columns import MAX_TIME_NS

if TYPE_CHECKING:
    from headwatch.model import TextFrame

MAX_NAME_CHARS = 1024
"""Of the names and ids of a request and of a document."""
MAX_DOCUMENTS = 4096
_LARGEST = 1 << 62


def checked(frame: TextFrame) -> TextFrame:
    """Return *frame*.

    Raises:
        WireError: With reason ``text`` (too long), ``value`` or ``shape``.  No message shows what was in it.
    """
    if len(frame.text) > LARGEST_CHARS + REDACTION_MARGIN:
        raise WireError("text", f"a text of {len(frame.text)} characters")
    if not len(frame.text) <= frame.chars <= _LARGEST:
        raise WireError("value", f"a text of {len(frame.text)} characters that says it has {frame.chars}")
    if not 0 <= frame.time_ns < MAX_TIME_NS or not 0 <= frame.sequence <= _LARGEST:
        raise WireError("value", f"a text of the time {frame.time_ns} ns and the number {frame.sequence}")
    context = frame.context
    names = [
        frame.source, frame.model, context.request_id, context.route, context.trace_id, context.user, context.tenant,
        context.language, context.template,
    ]  # fmt: skip
    if len(context.documents) > MAX_DOCUMENTS:
        raise WireError("shape", f"a text with {len(context.documents)} documents")
    names += [name for document in context.documents for name in (document.id, document.labels.get("tenant", ""))]
    if (longest := max(map(len, names))) > MAX_NAME_CHARS:
        raise WireError("value", f"a text with a name of {longest} characters")
    return frame
