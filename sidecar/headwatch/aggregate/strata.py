"""Which stratum a row belongs to: what must be equal before two numbers may be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.bands import context_band
from headwatch.records import Stratum

if TYPE_CHECKING:
    from headwatch.model import RequestContext, WorkerIdentity


def stratum_of(worker: WorkerIdentity, context: RequestContext, position: int) -> Stratum:
    """Return the stratum of the row at *position* of a request."""
    return Stratum(
        model=worker.model,
        revision=worker.revision,
        adapter=context.adapter,
        route=context.route,
        context_band=context_band(position + 1),
        phase="prefill" if position < context.prompt_tokens else "decode",
        language=context.language,
        template=context.template,
    )


def overflow(stratum: Stratum) -> Stratum:
    """Return the stratum that takes the rows of strata for which there is no room."""
    return Stratum(stratum.model, "", "", "other", "", stratum.phase)
