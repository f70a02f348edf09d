"""A deployment that was healthy for a while, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .engines import BEGUN, fed, running
from .windows import Deployment


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """The files of a deployment that was healthy for :data:`BEGUN` windows."""
    folder = tmp_path_factory.mktemp("healthy")
    with running(folder) as engine:
        assert fed(engine, Deployment(), 0, BEGUN) == {}
    return folder


@pytest.fixture
def begun(healthy, tmp_path) -> Path:
    """A copy of them."""
    for name in ("drift.db", "history.db"):
        shutil.copy(healthy / name, tmp_path / name)
    return tmp_path
