"""What the sidecar does where detection cannot go on: it tells, and the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.config import DriftConfig
from headwatch.errors import DriftStateError
from headwatch.watch.desk import Desk
from headwatch.watch.watch import Watch

from ..sidecars import health
from .scenes import CONFIG, window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk whose observer hands over one window a delivery."""
    drift = msgspec.structs.replace(CONFIG.drift, folder=str(tmp_path))
    assert isinstance(drift, DriftConfig)
    made = Desk(msgspec.structs.replace(CONFIG, drift=drift))
    made.start()
    numbers = iter(range(100))
    monkeypatch.setattr(made._observer, "release", lambda *_, **__: (window(next(numbers)),))
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DriftStateError("the disk is full"), "the disk is full"),
        (KeyError("lasting"), "unexpected KeyError; the log has the details"),
    ],
)
def test_a_window_that_cannot_be_judged_stops_nothing_and_is_judged_later(desk, monkeypatch, error, told):
    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "take", broken)
        desk.take((), (), health())
        assert desk.failure == told
        assert desk.status is None
    desk.take((), (), health())
    assert desk.failure == ""
    assert desk.status is not None
