"""The page of signals is what their definitions say."""

from __future__ import annotations

from pathlib import Path

from headwatch.cli import signals_doc
from headwatch.drift.signals import SIGNALS
from headwatch.drift.telemetry import FIGURES

PAGE = (Path(__file__).parents[3] / "docs" / "signals.md").read_text(encoding="utf-8")


def test_the_table_is_what_the_definitions_generate() -> None:
    """Change a definition, then run `python -m headwatch.cli.signals_doc docs/signals.md`."""
    assert signals_doc.written(PAGE) == PAGE
    assert PAGE.count("\n| `") >= len(SIGNALS)


def test_every_figure_of_telemetry_is_documented() -> None:
    for name in FIGURES:
        assert f"`{name}`" in PAGE
