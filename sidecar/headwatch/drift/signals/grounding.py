"""Whether the model reads the documents that it is given, and whether it rather follows what was said before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.signals.definition import SignalDefinition
from headwatch.model import SPAN_KINDS

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

_HISTORY, _DOCUMENT = SPAN_KINDS.index("history"), SPAN_KINDS.index("document")
_LOOKBACK = "Lookback Lens, arXiv 2407.07071"

DEFINITIONS = (
    SignalDefinition(
        "grounding_ratio", 0.01, -1, "1",
        "Lookback (mean weight per token of the documents, over that plus the mean weight per token of the generated text), "
        "averaged over generated rows and all heads.",
        "Right documents from wrong ones, for most heads; and it falls with the length of the documents and moves with that of "
        "the answer.",
        _LOOKBACK, banded=True,
    ),
    SignalDefinition(
        "grounding_ratio_retrieval", 0.01, -1, "1", "The same over the calibrated retrieval heads.",
        "Whether what was read is true; and as for length, the same as above. Needs a head map of the model.",
        f"{_LOOKBACK}; retrieval heads: arXiv 2404.15574", banded=True,
    ),
    SignalDefinition(
        "document_mass", 0.01, -1, "1",
        "Mass on the documents over all mass that is not on the sink, averaged over generated rows and all heads.",
        "Reading from the mere size of the documents: more tokens draw more mass.",
        banded=True,
    ),
    SignalDefinition(
        "document_mass_retrieval", 0.01, -1, "1", "The same over the calibrated retrieval heads.",
        "As above. Needs a head map of the model.",
        "retrieval heads: arXiv 2404.15574", banded=True,
    ),
    SignalDefinition(
        "history_mass", 0.02, 1, "1",
        "Mass on earlier turns over mass on earlier turns and documents, of requests that have both.",
        "Whether history and documents contradict each other: a longer conversation draws more mass as well.",
        banded=True,
    ),
)


def values(request: ReadRequest) -> dict[str, float]:
    """Return the signals that *request* defines."""
    record = request.record
    found = {
        "grounding_ratio": record.grounding_ratio,
        "grounding_ratio_retrieval": record.grounding_ratio_retrieval_heads,
        "document_mass": record.document_mass,
    }
    made = {name: value for name, value in found.items() if value is not None}
    calibrated = record.reading_retrieval_heads
    if calibrated is not None and not np.isnan(calibrated.generated[_DOCUMENT]):
        made["document_mass_retrieval"] = float(calibrated.generated[_DOCUMENT])
    if request.reading is not None:
        history, documents = (float(request.reading.generated[kind]) for kind in (_HISTORY, _DOCUMENT))
        if not np.isnan(history + documents) and history + documents > 0.0:
            made["history_mass"] = history / (history + documents)
    return made
