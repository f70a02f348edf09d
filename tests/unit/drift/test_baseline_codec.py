"""A baseline comes back from its bytes as it was, and bytes from strangers make nothing but numbers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from headwatch.drift import codec
from headwatch.drift.codec import dumps, loads
from headwatch.drift.learning import Span, learn
from headwatch.drift.parts import Part
from headwatch.drift.saved import from_bytes, to_bytes
from headwatch.errors import DriftStateError
from headwatch.history.file import History

from .windows import CHAT, CONFIG, RARE, Deployment


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[Part]:
    """Of a stratum with pools, a pooled one, and scopes."""
    deployment = Deployment(strata=(CHAT, RARE))
    with History(tmp_path_factory.mktemp("history") / "history.db") as history:
        for window in deployment.windows(0, 60):
            history.append(window)
        return learn(Span(history, deployment.first, deployment.first + 59), CONFIG, 60.0)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in fields)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def test_every_part_comes_back_to_the_last_bit(parts) -> None:
    assert {part.kind for part in parts} == {"heads", "signal"}
    assert any(part.members for part in parts)
    assert any(getattr(part.baseline, "pools", None) for part in parts)
    for part in parts:
        assert same(loads(dumps(part), Part), part)


def test_a_monitor_goes_on_alike_against_a_baseline_that_was_read(parts) -> None:
    part = parts[0]
    one, other = part.monitor(), loads(dumps(part), Part).monitor()
    random = np.random.default_rng(4)
    for number in range(20):
        values = part.streams.mean + 0.01 * random.standard_normal(part.streams.mean.shape)
        for monitor in (one, other):
            monitor.step(number, values, np.full(len(part.names), 40.0), np.full(part.covariates, 9.0))
    assert same(one.evidence(), other.evidence())


def altered(kept: bytes, change) -> bytes:
    arrays = from_bytes(kept)
    tree = json.loads(arrays["tree"].tobytes())
    change(tree)
    return to_bytes({**arrays, "tree": np.frombuffer(json.dumps(tree).encode(), np.uint8)})


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(version=codec.VERSION + 1),
        lambda tree: tree["value"].update({"class": "Popen"}),
        lambda tree: tree["value"].update({"class": "Path"}),
        lambda tree: tree["value"]["fields"].pop("names"),
        lambda tree: tree["value"]["fields"].update(unheard_of=1),
        lambda tree: tree["value"]["fields"]["known"].update(array="a999"),
        lambda tree: tree.update(value=[1, 2]),
        lambda tree: tree.update(value={"tuple": [1]}),
        lambda tree: tree.pop("value"),
    ],
)
def test_what_this_version_does_not_know_is_refused_by_name(parts, change) -> None:
    with pytest.raises(DriftStateError):
        loads(altered(dumps(parts[0]), change), Part)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_bytes_that_were_cut_off_are_refused(parts, share) -> None:
    kept = dumps(parts[0])
    with pytest.raises(DriftStateError):
        loads(kept[: int(len(kept) * share)], Part)


def test_a_value_that_cannot_be_kept_is_refused_at_once() -> None:
    with pytest.raises(DriftStateError, match="cannot be kept"):
        dumps({"a": object()})
