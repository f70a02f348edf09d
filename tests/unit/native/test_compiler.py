"""Code of ours in C is compiled on the machine that runs it, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.errors import CannotCompile
from headwatch.native import compiler

if TYPE_CHECKING:
    from pathlib import Path


def test_a_source_that_does_not_compile_is_one_clear_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "broken.c"
    source.write_text("int f( {")
    with pytest.raises(CannotCompile, match=r"failed: .*broken\.c"):
        compiler.compiled(source)


def test_a_second_start_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "fine.c"
    source.write_text("int f(void) { return 1; }")
    first = compiler.compiled(source)
    made = first.stat().st_mtime_ns
    assert compiler.compiled(source) == first
    assert first.stat().st_mtime_ns == made
    source.write_text("int f(void) { return 2; }")
    assert compiler.compiled(source) != first
