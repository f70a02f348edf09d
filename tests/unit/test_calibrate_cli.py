"""``headwatch calibrate heads`` says what is wrong before it starts an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["calibrate"], 2, "{heads}"),
        (["calibrate", "tails"], 2, "tails"),
        (["calibrate", "heads", "--dtype", "int3"], 2, "int3"),
        (["calibrate", "heads", "--model", "{folder}/nothing"], 1, "there is no config.json in it"),
        (["calibrate", "heads", "--model", "{folder}", "--seed", "-1"], 1, "--seed -1"),
        (["calibrate", "heads", "--model", "{folder}", "--out", "{folder}/nowhere/map.json"], 1, "there is no folder"),
        (["calibrate", "heads", "--model", "{folder}", "--out", "{folder}/map.json"], 1, "holds no weights"),
    ],
)
def test_what_cannot_work_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
):
    """The message names what offends, stdout stays empty, and no map is written."""
    (tmp_path / "config.json").write_text("{}")
    assert main([item.format(folder=tmp_path) for item in arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.strip().splitlines()[-1]
    assert last.startswith("headwatch: error:")
    assert message in last
    assert not (tmp_path / "map.json").exists()
