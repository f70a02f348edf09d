"""Choosing retrieval heads: which heads tell right documents from wrong ones, request by request.

The lookback of each head over the calibration requests is ranked by AUROC: the chance that a request with right documents
has a higher one than a request with wrong documents.  The best few heads (under 5 %) become the head map.  Their scores
are those of the data they were chosen on, and so too good; the demo's phases, which ask other questions about other
documents, show what they are worth.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import msgspec
import numpy as np

from headwatch import __version__
from headwatch.aggregate.head_map import HeadMap, MappedHead
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RETRIEVAL_HEADS = 10
_MAX_SHARE = 0.05
_QUERY = """
SELECT engine_id, layer, head, lookback FROM headwatch_request_heads
WHERE arm = {arm:String} AND isFinite(lookback) ORDER BY engine_id, layer, head
"""


def auroc(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """Return the chance that a value of *right* exceeds one of *wrong*, ties counting half; NaNs are left out.

    0.5 where one side is empty: such a head has told nothing.
    """
    right, wrong = right[np.isfinite(right)], wrong[np.isfinite(wrong)]
    if not len(right) or not len(wrong):
        return 0.5
    above = (right[:, None] > wrong[None, :]).mean()
    equal = (right[:, None] == wrong[None, :]).mean()
    return float(above + equal / 2)


def read_lookback(store: Path, arm: str) -> NDArray[np.float64]:
    """Return [requests, layers, heads] of an arm from the embedded store in the folder *store*; NaN where undefined.

    The sidecar must have ended: an embedded store belongs to one process at a time.

    Raises:
        CommandError: The store holds no request of *arm*.
    """
    client = clickhouse_connect.get_client(dsn=f"chdb://{store}")
    try:
        rows: list[Any] = list(client.query(_QUERY, parameters={"arm": arm}).result_rows)
    finally:
        client.close()
    if not rows:
        raise CommandError(f"the store holds no head of arm {arm!r}; see the logs beside {store}")
    requests = {name: index for index, name in enumerate(dict.fromkeys(row[0] for row in rows))}
    shape = (len(requests), max(row[1] for row in rows) + 1, max(row[2] for row in rows) + 1)
    values = np.full(shape, np.nan)
    for name, layer, head, lookback in rows:
        values[requests[name], layer, head] = lookback
    return values


def choose_heads(
    right: NDArray[np.float64], wrong: NDArray[np.float64], count: int = RETRIEVAL_HEADS
) -> list[MappedHead]:
    """Return the *count* heads with the highest AUROC, never more than 5 % of all, best first.

    *right* and *wrong* are [requests, layers, heads].
    """
    _, layers, heads = right.shape
    scores = [
        MappedHead(layer, head, round(auroc(right[:, layer, head], wrong[:, layer, head]), 4))
        for layer in range(layers)
        for head in range(heads)
    ]
    count = max(1, min(count, int(layers * heads * _MAX_SHARE)))
    return sorted(scores, key=lambda item: (-item.score, item.layer, item.head))[:count]


def head_map_of(model: str, model_sha256: str, right: NDArray[np.float64], wrong: NDArray[np.float64]) -> HeadMap:
    """Return the head map of *model* from its calibration requests, [requests, layers, heads] each."""
    chosen = choose_heads(right, wrong)
    mean_auroc = auroc(np.nanmean(right, axis=(1, 2)), np.nanmean(wrong, axis=(1, 2)))
    mask = np.zeros(right.shape[1:], np.bool_)
    mask[[item.layer for item in chosen], [item.head for item in chosen]] = True
    chosen_auroc = auroc(np.nanmean(right[:, mask], axis=1), np.nanmean(wrong[:, mask], axis=1))
    return HeadMap(
        version=1,
        model=model,
        layers=right.shape[1],
        heads_per_layer=right.shape[2],
        heads=chosen,
        model_sha256=model_sha256,
        provenance={
            "method": "AUROC of the lookback of each request, right against wrong documents of the same length",
            "command": "headwatch demo --record-head-map",
            "headwatch": __version__,
            "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "corpus": "calibration split of the demo's corpus; the demo's phases use none of it",
            "requests_right": len(right),
            "requests_wrong": len(wrong),
            "auroc_all_heads": round(mean_auroc, 4),
            "auroc_chosen_heads_same_data": round(chosen_auroc, 4),
        },
    )


def write_head_map(path: Path, head_map: HeadMap) -> None:
    """Write *head_map* as JSON that people can read.

    Raises:
        CommandError: The file cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(head_map), indent=2) + b"\n")
    except OSError as error:
        raise CommandError(f"cannot write the head map {path}: {error.strerror}") from error
