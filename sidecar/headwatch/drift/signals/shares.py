"""How the mass on documents is spread over them: by rank, what is read of what is paid for, whether one draws it all."""

from __future__ import annotations

from math import isnan, log2
from statistics import fmean, median
from typing import TYPE_CHECKING

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

UNREAD = 0.25
"""Of a fair share per token: a document that draws less is taken as not read."""
_LEAST_PER_TOKEN = 1.0 / 64
_MIDDLE = "Lost in the Middle, arXiv 2307.03172"
_RANK = "of {}, over its fair share by tokens (1: fair), of requests with three documents or more."

DEFINITIONS = (
    SignalDefinition(
        "top_document_share", 0.03, 0, "1",
        "The largest share of one document of the mass of all documents, of requests with two documents or more.",
        "Whether the largest is the right one; and it falls with the number of documents and rises with one long document.",
        banded=True,
    ),
    SignalDefinition(
        "rank_first_share", 0.05, 0, "1", "Share of mass " + _RANK.format("the document that the client lists first"),
        "Relevance from position: where the best document always stands in one place, its share is of both.",
        _MIDDLE, banded=True,
    ),
    SignalDefinition(
        "rank_middle_share", 0.05, -1, "1",
        "Mean share of mass " + _RANK.format("each document between the first and the last"),
        "As for the first.", _MIDDLE, banded=True,
    ),
    SignalDefinition(
        "rank_last_share", 0.05, 0, "1", "Share of mass " + _RANK.format("the document that the client lists last"),
        "As for the first.", _MIDDLE, banded=True,
    ),
    SignalDefinition(
        "unread_share", 0.03, 1, "1",
        f"Tokens of documents that draw less than {UNREAD:g} of their fair share per token, over the tokens of all documents, "
        "of requests with two documents or more.",
        "Whether what was not read was needed: a good reader skips what is beside the point. It tells what is paid for, "
        "not what is wasted.",
        banded=True,
    ),
    SignalDefinition(
        "capture_by_document", 0.1, 1, "1",
        "log2 of the largest share per token of one document over that of the median document, at the last row of the prompt, "
        "of requests with three documents or more.",
        "An instruction in a document from text that makes no sense or an error page, which draw it as well: look at "
        "instruction_focus, at source_share, and at the document.",
        banded=True,
    ),
)
_TWO, _THREE = 2, 3


def values(request: ReadRequest) -> dict[str, float]:
    """Return the signals that *request* defines."""
    read = request.read
    if len(read) < _TWO:
        return _capture(request)
    tokens = sum(item.tokens for item in read)
    made = {
        "top_document_share": max(item.share for item in read),
        "unread_share": sum(item.tokens for item in read if item.per_token < UNREAD) / tokens,
    }
    if len(read) >= _THREE:
        made["rank_first_share"] = read[0].per_token
        made["rank_middle_share"] = fmean(item.per_token for item in read[1:-1])
        made["rank_last_share"] = read[-1].per_token
    return made | _capture(request)


def _capture(request: ReadRequest) -> dict[str, float]:
    """Return how far one document stands out before anything is answered; all that was found count, read or not."""
    drawn = [item.first_per_token for item in request.documents]
    if len(drawn) < _THREE or any(isnan(share) for share in drawn):
        return {}
    return {"capture_by_document": log2(max(*drawn, _LEAST_PER_TOKEN) / max(median(drawn), _LEAST_PER_TOKEN))}
