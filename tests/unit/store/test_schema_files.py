"""The schema as files: numbered without gaps, readable alone, and what was released stays as it was."""

from __future__ import annotations

import re

import pytest

from headwatch.config import StoreConfig
from headwatch_exporters.clickhouse.schema_files import Step, migrations, tables, views

RELEASED = {1: "25daa595e52c4dd95efc51c9675a5512"}
"""Checksums of versions that stores out there have seen.  Never change one; add a version."""
STEPS = [pytest.param(step, id=f"{one.version}-{step.name}") for one in migrations() for step in one.steps]


def test_versions_go_up_by_one():
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
    assert all(re.fullmatch(r"[a-z_]+", migration.name) for migration in migrations())


def test_released_versions_are_what_they_were():
    checksums = {migration.version: migration.checksum for migration in migrations()}
    assert {version: checksums[version] for version in RELEASED} == RELEASED


@pytest.mark.parametrize("step", STEPS)
def test_every_file_says_what_it_is_for_and_ends_its_statements(step: Step):
    assert step.text.startswith("-- ")
    assert step.text.rstrip().endswith(";")
    for statement in step.statements(StoreConfig()):
        assert not re.search(r"\{[a-z_ ]+\}", statement), "a placeholder was left"


def test_days_come_from_the_configuration():
    config = StoreConfig(hour_ttl_days=77)
    statements = dict(tables(config))
    assert "toIntervalDay(77)" in statements["headwatch_heads_1h"]
    assert "toIntervalDay(77)" not in statements["headwatch_heads_1d"]


def test_every_setting_of_retention_is_used():
    text = "".join(step.text for migration in migrations() for step in migration.steps)
    assert all(f"{{{name}}}" in text for name in StoreConfig().ttl_days())


def test_the_fill_selects_what_its_view_selects():
    steps = {step.name: step for step in migrations()[1].steps}
    fill, view = list(steps["20_fill"].statements(StoreConfig()))[-1], steps["21_headwatch_head_points_view"]
    assert view.text.split(" AS\n", 1)[1].strip().rstrip(";") in fill


def test_views_are_made_after_what_they_read():
    made: list[str] = []
    for migration in migrations():
        for step in migration.steps:
            if step.view:
                source = re.search(r"^FROM (\w+)", step.text, re.MULTILINE)
                target = re.search(r" TO (\w+) AS", step.text)
                assert source is not None
                assert target is not None
                assert {source[1], target[1]} <= set(made)
            made.append(step.table)
    assert [step.view for step in views()][-1] == "headwatch_head_points_view", "the last one opens the chain"
