"""Under which conditions a benchmark of the whole engine ran: what a reader needs to judge its figures, or to repeat it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.load import Bystanders
from headwatch.bench.machine import Machine, describe

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.bench.engine import Engine


class Conditions(msgspec.Struct, frozen=True):
    """Of one run."""

    model: str
    prompt_tokens: int
    kernel: str
    """The row kernel that headwatch chose."""
    engine_threads: int
    used_cores: int
    """On which everything ran."""
    machine: Machine
    others_cpu_share: float
    """Share of the machine's processor time that went to others during the run: what makes intervals wide."""
    quick: bool
    seconds: float

    def headline(self) -> str:
        """Return the line that stands above the figures."""
        return (
            f"{self.model}, {self.prompt_tokens}-token prompts; kernel {self.kernel}, engine threads: {self.engine_threads}, "
            f"everything on {self.used_cores} of "
            f"{self.machine.cores} cores ({self.machine.cpu}), of which others used {self.others_cpu_share:.1%}"
        )


class Watch:
    """Measures the conditions from its creation on."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bystanders = Bystanders()

    def conditions(
        self, model: Path, prompt_tokens: int, kernel: str, engine: Engine, *, quick: bool, used_cores: int = 0
    ) -> Conditions:
        """Return the conditions until now; *used_cores* 0: all."""
        machine = describe()
        return Conditions(
            model=model.name, prompt_tokens=prompt_tokens, kernel=kernel, engine_threads=engine.threads,
            used_cores=used_cores or machine.cores, machine=machine, others_cpu_share=self._bystanders.share(), quick=quick,
            seconds=round(time.monotonic() - self._started, 1),
        )  # fmt: skip
