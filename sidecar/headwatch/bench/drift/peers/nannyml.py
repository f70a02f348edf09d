"""NannyML's univariate drift of every head: Jensen-Shannon distance of each chunk of an hour, page beyond mean + 3 deviations.

Mean and deviation are those of the reference's own chunks, so a slow signal is counted in; what it costs is that nothing is
said before a chunk is full.  Held against ``nannyml`` by a test.

Source: nannyml 0.13.1, ``UnivariateDriftCalculator`` with its defaults for continuous columns, chunks of 60 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block

CHUNK = 60


class NannyMl:
    """The customary limit is 3."""

    customary = 3.0

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def learn(self, baseline: Block) -> None:
        """Take bins and the distances of the baseline's own chunks."""
        values = baseline.values
        replicas, heads = values.shape[1:]
        self._edges: list[NDArray[np.float64]] = []
        self._shares: list[NDArray[np.float64]] = []
        self._chunks: list[list[NDArray[np.float64]]] = [[] for _ in range(replicas)]
        own = np.zeros((max(len(values) // CHUNK, 1), replicas, heads))
        for replica, head in np.ndindex(replicas, heads):
            series = values[~np.isnan(values[:, replica, head]), replica, head]
            edges = np.histogram_bin_edges(series, bins="doane")
            self._edges.append(edges)
            self._shares.append(np.histogram(series, bins=edges)[0] / len(series))
        for chunk in range(len(own)):
            own[chunk] = [
                self._distances(replica, values[chunk * CHUNK : (chunk + 1) * CHUNK, replica]) for replica in range(replicas)
            ]
        self._mean, self._deviation = np.nanmean(own, axis=0), np.nanstd(own, axis=0)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return by how many deviations the furthest head is off, over the limit, [R]; at the end of a chunk."""
        closeness = np.zeros(len(values))
        for replica, window in enumerate(values):
            if np.isnan(window).any():
                continue
            self._chunks[replica].append(window)
            if len(self._chunks[replica]) == CHUNK:
                found = self._distances(replica, np.stack(self._chunks[replica]))
                off = (found - self._mean[replica]) / np.maximum(self._deviation[replica], 1e-9)
                closeness[replica] = np.nan_to_num(off).max() / self.limit
                self._chunks[replica] = []
        return closeness

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Begin a chunk."""
        for replica in np.flatnonzero(replicas):
            self._chunks[replica] = []

    def _distances(self, replica: int, chunk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance of each head of one *chunk* [n, K] from its reference, [K]."""
        heads = chunk.shape[1]
        first = replica * heads
        return np.array([
            jensen_shannon(self._edges[first + head], self._shares[first + head], chunk[:, head]) for head in range(heads)
        ])


def jensen_shannon(edges: NDArray[np.float64], shares: NDArray[np.float64], sample: NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon distance (base 2) of *sample* from a reference with *shares* in the bins at *edges*."""
    known = sample[~np.isnan(sample)]
    if not len(known):
        return float("nan")
    found = np.histogram(known, bins=edges)[0] / len(known)
    p, q = np.append(shares, 0.0), np.append(found, 1.0 - found.sum())
    middle = (p + q) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    return float(np.sqrt(max(terms.sum() / 2.0, 0.0)))
