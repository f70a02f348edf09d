"""What is learned once and copied for each life."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from .lives import TOLD, Life
from .scenes import taught

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return folders that know what is healthy: with canaries in every window (True), and without."""
    folders = {}
    for canaries in (True, False):
        folders[canaries] = tmp_path_factory.mktemp("learned") / "drift"
        watch, _ = taught(folders[canaries], canaries=canaries)
        watch.close()
    return folders


@pytest.fixture
def begin(learned: dict[bool, Path], tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Return a maker of lives that have learned what is healthy."""
    lives: list[Life] = []

    def made(config=TOLD, *, canaries: bool = True, asks: bool = False) -> Life:
        folder = tmp_path / f"life{len(lives)}"
        shutil.copytree(learned[canaries], folder)
        lives.append(Life(folder, config, asks=asks))
        return lives[-1]

    yield made
    for life in lives:
        life.watch.close()
