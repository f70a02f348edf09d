"""Every setting, metric, command and check is documented, as it is and not as it was."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.cli import metrics_doc
from headwatch.cli.main import COMMANDS
from headwatch.config import Config
from headwatch.doctor.context import gather
from headwatch.doctor.report import examine
from headwatch.metrics import METRICS

from .sidecars import serving

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| `(?P<key>[a-z_]+)` \| `(?P<default>[^`]*)` \| (?P<meaning>.+) \|$")


def documented() -> Mapping[str, str]:
    """Return ``section.key`` to default, as docs/configuration.md has them."""
    found, section = {}, ""
    for line in (DOCS / "configuration.md").read_text().splitlines():
        if heading := re.match(r"## `\[([a-z]+)\]`", line):
            section = heading[1]
        elif row := ROW.match(line):
            found[f"{section}.{row['key']}"] = row["default"]
    return found


def test_every_setting_is_documented_with_its_default():
    defaults = {
        f"{section}.{key}": json.dumps(value)
        for section, values in msgspec.to_builtins(Config()).items()
        for key, value in values.items()
    }
    assert documented() == defaults


def test_the_page_of_metrics_is_what_the_table_of_metrics_generates():
    """Change metrics.py, then run `python -m headwatch.cli.metrics_doc > docs/metrics.md`."""
    page = (DOCS / "metrics.md").read_text()
    assert page == metrics_doc.render()
    for metric in METRICS:
        assert f"| `{metric.name}` | `{metric.prometheus_name}` |" in page


def test_the_figures_of_the_benchmarks_are_those_that_are_committed():
    """Commit a result, then run `python -m benchmarks.page`."""
    sys.path.insert(0, str(DOCS.parent))
    try:
        page = importlib.import_module("benchmarks.page")
    finally:
        sys.path.pop(0)
    assert (DOCS / "benchmarks.md").read_text() == page.page()


def test_every_check_of_the_doctor_is_documented(tmp_path: Path):
    page = (DOCS / "doctor.md").read_text()
    with serving() as url:
        names = {finding.name for finding in examine(gather(url=url, environ={"HOME": str(tmp_path)})).checks}
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))
    assert rows == names | {"store"}, "the store is looked at only where no sidecar answers"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named_somewhere_in_the_documentation(command: str):
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    assert any(re.search(rf"(headwatch|make) {command}\b", page.read_text()) for page in pages)


def test_links_between_pages_lead_somewhere():
    for page in (DOCS / name for name in ("configuration.md", "doctor.md", "security.md", "metrics.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
