"""Series of heads go in pieces, each with a token of its own that is the same whenever the delivery is written."""

from __future__ import annotations

import pytest

from headwatch_exporters.clickhouse.writing import batches
from headwatch_exporters.clickhouse.writing.batches import HEADS, PIECE_ROWS, Batches

from ...contract.deliveries import wide


def pieces() -> list[tuple[str, int]]:
    """Return token and rows of each piece of a window of 20,000 cells."""
    return [(token, len(columns["Count"])) for table, columns, token in Batches().parts(wide()) if table == HEADS]


def test_a_window_is_whole_in_pieces_with_stable_tokens() -> None:
    found = pieces()
    sizes = [rows for _, rows in found if rows]
    assert sum(sizes) == 20_000
    assert max(sizes) == PIECE_ROWS
    tokens = [token for token, _ in found]
    assert len(set(tokens)) == len(tokens)
    assert tokens == [token for token, _ in pieces()]


def test_rows_of_pieces_are_those_of_the_window_in_order() -> None:
    whole = next(columns for table, columns in Batches()._measured(wide()) if table == HEADS)
    parts = [columns for table, columns, _ in Batches().parts(wide()) if table == HEADS]
    joined = [attributes for columns in parts for attributes in columns["Attributes"]]
    assert joined[:20_000] == whole["Attributes"]


def test_a_large_window_has_larger_pieces_and_no_more_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PIECE_ROWS", 100)
    sizes = [rows for _, rows in pieces() if rows]
    assert len(sizes) <= batches.MOST_PIECES
    assert sum(sizes) == 20_000
