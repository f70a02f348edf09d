"""``headwatch canary --stand-alone``: run and pin where no sidecar runs, which is the case of CI."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from headwatch.canary.client import CanaryClient
from headwatch.canary.companions import COMPANIONS
from headwatch.canary.fingerprint import save
from headwatch.canary.pinning import MAX_RUNS, Pinning
from headwatch.canary.prompts import load_prompts
from headwatch.canary.send import send_all
from headwatch.canary.shelf import Shelf
from headwatch.config_file import load
from headwatch.errors import CanaryError, CommandError
from headwatch.places import drift_folder
from headwatch.stand_alone import StandAlone

if TYPE_CHECKING:
    import argparse

    from headwatch.canary.fingerprint import Fingerprint
    from headwatch.canary.signature import Run

FOLDER = "fingerprints"
"""In the drift folder."""
_REPORT_SECONDS = 15.0


class Alone:
    """A receiver of its own and a client, while the block lasts."""

    def __init__(self, namespace: argparse.Namespace) -> None:
        """Prepare.

        Raises:
            ConfigError: The configuration or a file it names is wrong.
        """
        self._given = namespace
        self._config = load(path=namespace.config).config
        canary = self._config.canary
        if namespace.endpoint:
            canary = msgspec.structs.replace(canary, endpoint=namespace.endpoint)
        self._prompts = load_prompts(Path(canary.prompts) if canary.prompts else None)
        self._shelf = Shelf(drift_folder(self._config) / FOLDER, Path(canary.fingerprint) if canary.fingerprint else None)
        self._receiver = StandAlone(self._config)
        self._client = CanaryClient(canary)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Bind, and wait until a worker reports.

        Raises:
            CommandError: The endpoint is in use, or no worker reports to it.
        """
        self._stack.enter_context(self._client)
        try:
            self._stack.enter_context(self._receiver)
            self._await_worker(time.monotonic() + min(_REPORT_SECONDS, self._given.wait))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _await_worker(self, deadline: float) -> None:
        while not self._receiver.workers:
            if time.monotonic() > deadline:
                raise CommandError(f"no worker reports to {self._config.wire.endpoint} (wire.endpoint): does vLLM run with "
                                   "headwatch and this configuration?")
            time.sleep(0.1)

    def pinned(self) -> Fingerprint:
        """Return the fingerprint in force.

        Raises:
            CanaryError: There is none, or it cannot be read.
        """
        found = self._shelf.current()
        if found is None:
            raise CanaryError("none", f"no fingerprint is pinned ({self._shelf.path}); pin one with `headwatch canary pin`, or "
                                      "name one with --fingerprint")
        return found

    def send(self, company: int = 0) -> Run:
        """Return one run.

        Raises:
            CanaryError: Nothing of it could be read.
        """
        run = send_all(self._client, self._receiver.collector, self._prompts, time.time_ns, company=company)
        if not run.signatures:
            raise CanaryError("incomplete", "; ".join(f"{name}: {why}" for name, why in run.failures.items()))
        return run

    def pin(self) -> tuple[Fingerprint, Path]:
        """Return the fingerprint of the runs made now, and where it was written.

        Raises:
            CanaryError: A run is incomplete, or the fingerprint cannot be written.
            CommandError: There are too many runs to make, or too little time.
        """
        if self._given.runs is not None and not 1 <= self._given.runs <= MAX_RUNS:
            raise CommandError(f"--runs {self._given.runs}: give 1 to {MAX_RUNS}")
        pinning = Pinning(self._prompts, self._given.note, self._given.runs)
        deadline = time.monotonic() + self._given.wait
        fingerprint = None
        while fingerprint is None:
            if time.monotonic() > deadline:
                raise CommandError(f"only {pinning.gathered} runs within {self._given.wait:g} s (--wait)")
            fingerprint = pinning.add(self.send(COMPANIONS if pinning.in_company else 0), time.time_ns())
        if self._given.out:
            save(fingerprint, self._given.out)
            return fingerprint, self._given.out
        return fingerprint, self._shelf.pin(fingerprint)
