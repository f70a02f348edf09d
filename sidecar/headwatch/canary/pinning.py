"""When enough runs have been seen to pin a model's fingerprint.

Three runs that agree are enough on a float32 engine: such an engine repeats itself to rounding, measured idle and under load.
Elsewhere noise has to be learned, and it depends on what shares a batch with a prompt: so twenty runs, every second one in
company (:mod:`headwatch.canary.companions`).  A run that is incomplete does not
count; runs of two models or templates start anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.canary.fingerprint import EXACT_DTYPE, learn
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from headwatch.canary.fingerprint import Fingerprint
    from headwatch.canary.prompts import PromptSet
    from headwatch.canary.signature import Run

EXACT_RUNS = 3
NOISY_RUNS = 20
MAX_RUNS = 100


class Pinning:
    """Gathers runs until they make a fingerprint."""

    def __init__(self, prompts: PromptSet, note: str, runs: int | None = None, *, urgent: bool = False, order: int = 0) -> None:
        """Prepare; *runs* are how many to take, None for as many as it needs.

        *urgent*: runs follow each other at once, since nothing is compared meanwhile.  *order*: the number of the order that a
        person waits for, and is told of where a run fails; 0: nobody waits, and it goes on after a run that failed.
        """
        self.urgent = urgent
        self.order = order
        self._prompts = prompts
        self._note = note
        self._wanted = runs
        self._runs: list[Run] = []

    @property
    def gathered(self) -> int:
        """Return how many runs there are so far."""
        return len(self._runs)

    @property
    def hasty(self) -> bool:
        """Return whether the next run need not wait for its time: these are enough where they agree."""
        return len(self._runs) < EXACT_RUNS

    @property
    def in_company(self) -> bool:
        """Return whether companions should run beside the next run."""
        worker = self._runs[0].worker if self._runs else None
        return worker is not None and worker.dtype != EXACT_DTYPE and len(self._runs) % 2 == 1

    def add(self, run: Run, now_ns: int) -> Fingerprint | None:
        """Take *run* and return the fingerprint, once there is one.

        Raises:
            CanaryError: The run is incomplete, or not of the model of those before it, and what was gathered is forgotten.
        """
        if run.failures or run.worker is None:
            raise CanaryError(run.reason or "incomplete", "; ".join(f"{name}: {why}" for name, why in run.failures.items()))
        self._runs.append(run)
        enough = self._wanted or (EXACT_RUNS if run.worker.dtype == EXACT_DTYPE else NOISY_RUNS)
        if len(self._runs) < enough:
            return None
        try:
            found = learn(self._runs, self._prompts, now_ns, self._note)
        except CanaryError as error:
            if error.reason == "few_runs" and self._wanted is None:
                return None  # float32, but not exact: noise has to be learned after all
            self._runs = [run] if error.reason == "mixed" else []
            raise
        settled = self._wanted is not None or len(self._runs) >= NOISY_RUNS or (
            found.noise is None and found.dtype == EXACT_DTYPE
        )
        return found if settled else None
