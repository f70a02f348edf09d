"""A folder of drift detection that cannot be made is one clear line, and no traceback at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.config import Config, DriftConfig
from headwatch.errors import CommandError
from headwatch.watch.desk import Desk

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"cannot make the folder .*file/drift: Not a directory \(drift\.folder\)"):
        Desk(Config(drift=DriftConfig(folder=str(tmp_path / "file" / "drift"))))
