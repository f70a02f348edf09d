"""The page of what is supported says what the tests saw, for every variant, and nothing else."""

from __future__ import annotations

from ..variants.matrix import PAGE, VARIANTS, load, page


def test_the_table_of_the_page_is_the_one_that_the_rows_give() -> None:
    """Run the variants' tests with HEADWATCH_MATRIX=write, then `python -m tests.variants.matrix`."""
    assert PAGE.read_text() == page()


def test_every_variant_has_a_row_that_keeps_its_bound() -> None:
    rows = load()
    assert {row.variant for row in rows} == set(VARIANTS)
    for row in rows:
        assert row.rows > 0
        assert row.max_error <= row.bound
        assert row.bound == (1e-4 if row.dtype == "float32" else 2e-2)


def test_at_least_fourteen_variants_ran_in_a_real_engine() -> None:
    assert len({row.variant for row in load() if row.shown_by == "real engine"}) >= 14


def test_rows_of_tensors_claim_no_engine() -> None:
    for row in load():
        assert row.shown_by in {"real engine", "recorded tensors"}
        assert bool(row.vllm and row.runner) == (row.shown_by == "real engine")
