"""A secret in a file: used where it is the owner's alone, refused with the reason where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwatch.errors import ConfigError
from headwatch.secret_file import read_secret, write_secret


def test_a_secret_that_was_written_is_its_owners_alone_and_is_read_without_its_line_end(tmp_path: Path):
    write_secret(tmp_path / "secret")
    found = read_secret("wire.control_secret_file", str(tmp_path / "secret"))
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (len(found), found) == (64, found.strip())
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "secret")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o644, 0o777])
def test_a_secret_that_others_can_use_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "secret"
    path.write_text("s" * 32)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"http\.token_file: others can use .* \(mode {mode:04o}\); chmod 600 it"):
        read_secret("http.token_file", str(path))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_modes_that_only_the_owner_can_use_are_taken(tmp_path: Path, mode: int):
    path = tmp_path / "secret"
    path.write_text("s" * 32 + "\n")
    path.chmod(mode)
    assert read_secret("http.token_file", str(path)) == b"s" * 32


@pytest.mark.parametrize(("text", "size"), [("", 0), ("short", 5), (" " * 40, 0), ("s" * 5000, 4097)])
def test_a_secret_of_no_use_is_refused_without_showing_it(tmp_path: Path, text: str, size: int):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"holds {size} bytes") as caught:
        read_secret("http.token_file", str(path))
    assert "short" not in str(caught.value)


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path):
    """A pipe would otherwise block its reader until somebody writes."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, message in (("pipe", "no ordinary file"), ("none", "No such file"), (".", "no ordinary file|Is a directory")):
        with pytest.raises(ConfigError, match=message):
            read_secret("http.token_file", str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_secret_is_refused(tmp_path: Path):
    write_secret(tmp_path / "secret")
    os.chown(tmp_path / "secret", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        read_secret("http.token_file", str(tmp_path / "secret"))
