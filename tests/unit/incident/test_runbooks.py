"""Runbooks: one for each class, every cause in it, and nothing in it that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headwatch.cli.incident import ACTIONS
from headwatch.cli.main import COMMANDS
from headwatch.config import Config
from headwatch.findings import CLASSES
from headwatch.incident.table import LEAST, ROWS
from headwatch.incident.telling import FIRST

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [*(f"runbooks/{name}.md" for name in (*CLASSES, "grounding")), "incidents.md"]


@pytest.mark.parametrize("drift_class", CLASSES)
def test_every_class_has_a_runbook_with_the_same_five_parts(drift_class):
    text = (DOCS / "runbooks" / f"{drift_class}.md").read_text()
    parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert parts == ["First three checks", "Telling it from its runner-up", "Mitigate", "Close it"]
    assert text.count("**What the page means.**") + text.count("**You were not paged for this") == 1
    assert re.findall(r"^\d\. ", text, re.MULTILINE)[:3] == ["1. ", "2. ", "3. "]
    for ruling in ("--ruling",):
        assert ruling in text


@pytest.mark.parametrize("drift_class", ["telemetry", "model", "retrieval"])
def test_every_cause_that_a_page_can_name_is_in_its_runbook(drift_class):
    text = (DOCS / "runbooks" / f"{drift_class}.md").read_text()
    for cause in {row.cause for row in ROWS if row.drift_class == drift_class}:
        assert f"`{cause}`" in text, cause


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_actions_that_are_named_exist(page):
    text = (DOCS / page).read_text()
    for command, action in re.findall(r"(?:`|^\$ )headwatch ([a-z][a-z-]+)(?: ([a-z]+))?", text, re.MULTILINE):
        assert command in COMMANDS, command
        if command == "incident" and action:
            assert action in ACTIONS, action


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page):
    sections = {name: type(getattr(Config(), name)).__struct_fields__ for name in Config.__struct_fields__}
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]+)?`", (DOCS / page).read_text()):
        if section in sections:
            assert key in sections[section], f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = DOCS / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_first_thing_to_do_names_commands_that_exist():
    for text in FIRST.values():
        for command in re.findall(r"headwatch ([a-z-]+)", text):
            assert command in COMMANDS


def test_every_figure_that_a_row_asks_for_has_a_least_change():
    """A row that asks for a figure without a stated bound would believe any change."""
    from headwatch.drift.signals import SIGNALS
    from headwatch.drift.traffic_baseline import KINDS

    assert {name.removesuffix(".") for name in LEAST if name.removesuffix(".") in SIGNALS} == {
        name.removesuffix(".") for name in LEAST
    } - {"refused_layers", *(f"{kind}:" for kind in ("template", *KINDS)), "length", "asked_length", "load"}
