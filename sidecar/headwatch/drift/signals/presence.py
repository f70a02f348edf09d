"""Whether documents came at all, and how much of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

DEFINITIONS = (
    SignalDefinition(
        "documents_absent", 0.05, 1, "1", "1 where the request names no document, else 0.",
        "Whether it should have named one. A field that was rejected is not absent but unresolved.",
        counted=True,
    ),
    SignalDefinition(
        "documents_unresolved", 0.05, 1, "1",
        "Documents that were named and not found in the prompt, over those named; 1 where the whole field was rejected.",
        "Whether retrieval or the client that names documents is at fault: an empty text and a text that the template "
        "changed look alike.",
        counted=True,
    ),
    SignalDefinition(
        "document_count", 0.25, -1, "{document}", "Documents named.",
        "Why there are fewer: a source that is down, a cut-off that was raised, a question that needs fewer.",
    ),
    SignalDefinition(
        "document_tokens", 16.0, -1, "{token}", "Tokens of the documents found, together.",
        "Whether they were cut short or fewer were asked for: look at tokens_per_document and document_count.",
    ),
    SignalDefinition(
        "tokens_per_document", 8.0, -1, "{token}", "Tokens of the documents found, over their number.",
        "Whether a document was cut or is short by nature: another corpus of short texts looks the same.",
    ),
)


def values(request: ReadRequest) -> dict[str, float]:
    """Return the signals that *request* defines."""
    made = {"documents_absent": float(request.record.state == "absent")}
    if request.rejected:
        made["documents_unresolved"] = 1.0
    elif request.named:
        found = sum(item.found for item in request.context.documents if item.kind == "document")
        made["documents_unresolved"] = 1.0 - found / request.named
    if not request.rejected:
        made["document_count"] = float(request.named)
    if request.documents:
        tokens = sum(item.tokens for item in request.documents)
        made["document_tokens"] = float(tokens)
        made["tokens_per_document"] = tokens / len(request.documents)
    return made
