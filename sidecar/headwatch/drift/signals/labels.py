"""What the labels of documents say that the model should rather not read: unreliable, forbidden, another tenant's.

Labels are the client's (docs/request-field.md).  ``reliability``: a number, unreliable below ½, or one of the words below.
``classification``: forbidden where it is one of the words below.  ``tenant``: a request belongs to the tenant of more
than half of its labelled documents, since a request itself names none.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

UNRELIABLE = frozenset(("unreliable", "low", "unverified", "untrusted", "disputed", "retracted", "deprecated", "draft"))
FORBIDDEN = frozenset(("forbidden", "restricted", "secret", "top secret", "top-secret", "confidential"))
_LEAST_RELIABLE = 0.5
_KNOWN = "among the documents with that label."

DEFINITIONS = (
    SignalDefinition(
        "unreliable_mass", 0.02, 1, "1", "Share of mass on documents whose label reliability says that they are not, " + _KNOWN,
        "Whether the label is right, and whether the answer believed the document.",
        counted=True,
    ),
    SignalDefinition(
        "forbidden_mass", 0.02, 1, "1", "Share of mass on documents whose label classification forbids them, " + _KNOWN,
        "Whether this user may see it after all: a label is of the document, not of who asks.",
        counted=True,
    ),
    SignalDefinition(
        "other_tenant_mass", 0.02, 1, "1",
        "Share of mass on documents of another tenant than that of more than half of the labelled documents.",
        "A request all of whose documents are another tenant's: their majority is then taken for its own. Undefined where no "
        "tenant has a majority.",
        counted=True,
    ),
)


def values(request: ReadRequest) -> dict[str, float]:
    """Return the signals that *request* defines."""
    reliability = _labelled(request, "reliability")
    classification = _labelled(request, "classification")
    tenants = _labelled(request, "tenant")
    chosen = {
        "unreliable_mass": {rank: _unreliable(label) for rank, label in reliability.items()},
        "forbidden_mass": {rank: label in FORBIDDEN for rank, label in classification.items()},
        "other_tenant_mass": _of_others(tenants),
    }
    made = {name: request.share_where(ranks) for name, ranks in chosen.items() if ranks}
    return {name: share for name, share in made.items() if share is not None}


def _labelled(request: ReadRequest, label: str) -> dict[int, str]:
    found = {item.rank: item.document.labels.get(label, "").strip().lower() for item in request.read}
    return {rank: word for rank, word in found.items() if word}


def _unreliable(label: str) -> bool:
    try:
        return float(label) < _LEAST_RELIABLE
    except ValueError:
        return label in UNRELIABLE


def _of_others(tenants: dict[int, str]) -> dict[int, bool]:
    """Return by rank whether a document is another tenant's; empty where no tenant has a majority."""
    if not tenants:
        return {}
    own, count = Counter(tenants.values()).most_common(1)[0]
    return {rank: tenant != own for rank, tenant in tenants.items()} if 2 * count > len(tenants) else {}
