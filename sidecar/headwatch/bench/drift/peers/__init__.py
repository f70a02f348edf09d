"""The peers of ``bench drift``: each in one configuration, its limit tuned once on the same nulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headwatch.bench.drift.peers.adwin import Adwin
from headwatch.bench.drift.peers.cusum import Cusum
from headwatch.bench.drift.peers.evidently import Evidently
from headwatch.bench.drift.peers.kswin import Kswin
from headwatch.bench.drift.peers.nannyml import NannyMl
from headwatch.bench.drift.peers.page_hinkley import PageHinkley
from headwatch.bench.drift.peers.psi import Psi
from headwatch.bench.drift.peers.three_sigma import ThreeSigma

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.bench.drift.contest import Contestant


class Peer(Protocol):
    """A kind of detector with one limit."""

    customary: float
    """The limit that its makers or its textbooks give it."""

    def __call__(self, limit: float) -> Contestant:
        """Return a detector that pages at *limit*."""


PEERS: Mapping[str, Peer] = {
    "three sigma": ThreeSigma, "CUSUM": Cusum, "Page-Hinkley": PageHinkley, "ADWIN": Adwin, "KSWIN": Kswin, "PSI": Psi,
    "Evidently": Evidently, "NannyML": NannyMl,
}  # fmt: skip
