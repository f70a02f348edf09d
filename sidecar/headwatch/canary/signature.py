"""What one canary run saw: for each prompt the features of every head in the last rows of the prompt.

Why the last eight rows, one by one: measured on the packaged model, one altered weight moves the last row by 9e-4 to 1e-2 at
most, depending on the prompt, and the last eight by 1e-2 to 2e-2 in every prompt.  Thirty-two rows show no more, and a mean
over rows hides what moves to and fro.  Memory: 4 bytes for each row, layer, head and feature, so 52 KB a prompt for the
packaged model (30 x 9 heads) and 1 MB for one of 80 layers and 64 heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headwatch.model import WorkerIdentity


@dataclass(frozen=True, slots=True)
class Signature:
    """One prompt as the model read it once.  R rows, L layers, H heads, F features (``headwatch.model.FEATURES``)."""

    prompt: str
    prompt_tokens: int
    digest: str
    """Of the tokens of the chat template and the system text, as the front end gives it; empty where it does not."""
    adapter: str
    worker: WorkerIdentity
    """Which engine answered."""
    values: NDArray[np.float32] = field(repr=False)
    """[R, L, H, F]; NaN where a feature is undefined or a layer is not captured."""


@dataclass(frozen=True, slots=True)
class Run:
    """All prompts, sent once."""

    time_ns: int
    signatures: dict[str, Signature] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Prompts that could not be read, and why."""
    reason: str = ""
    """Of the first of them: a reason of :class:`~headwatch.errors.CanaryError`."""
    away: bool = False
    """Whether nothing answered at the server's address."""

    @property
    def worker(self) -> WorkerIdentity | None:
        """Return who answered; None where nothing was captured."""
        return next((item.worker for item in self.signatures.values()), None)
