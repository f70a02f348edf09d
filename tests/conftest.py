"""Fixtures that more than one suite needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from .peers import peer

if TYPE_CHECKING:
    from pathlib import Path

settings.register_profile("headwatch", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("headwatch")


@pytest.fixture(scope="session")
def prometheus_binary() -> Path:
    """The real Prometheus; a test that needs it fails where it is missing, and says what to run."""
    return peer("prometheus")


@pytest.fixture(scope="session")
def promtool_binary() -> Path:
    return peer("promtool")


@pytest.fixture(scope="session")
def rotel_binary() -> Path:
    """A real OTLP receiver."""
    return peer("rotel")
