"""The schema as files: a folder of ``sql/`` for each version, a file for each step, which can be read and run alone.

Versions go up and never change once they are released; what a store has seen is its own table ``headwatch_schema``
(:mod:`headwatch_exporters.clickhouse.schema`).  A new store is made by the same steps as an old one is brought up to date, so
there is one way to any version.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from headwatch.config import StoreConfig

LEDGER = "headwatch_schema"
"""The table of what was applied."""
OURS = ("otel_metrics_", "headwatch_")
"""How the names of our tables begin."""
_END = re.compile(r";\s*(?:\n|$)")
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+)", re.MULTILINE)
_VIEW = re.compile(r"^CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) TO (\w+) AS\n", re.MULTILINE)
_TTL = re.compile(r"^TTL (.+)$", re.MULTILINE)
_SELECT_OF = re.compile(r"\{select of (\w+)\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One file: statements that may be run again until the step is recorded."""

    name: str
    text: str

    def statements(self, config: StoreConfig) -> Iterator[str]:
        """Yield the statements, with the days of *config* filled in."""
        text = self.text
        for name, days in config.ttl_days().items():
            text = text.replace(f"{{{name}}}", str(days))
        for part in _END.split(text):
            if _bare(part):
                yield part.strip()

    @property
    def table(self) -> str:
        """Return the table that the step creates; empty where it creates none."""
        found = _TABLE.search(self.text)
        return found[1] if found else ""

    @property
    def view(self) -> str:
        """Return the materialised view that the step creates; empty where it creates none."""
        found = _VIEW.search(self.text)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Migration:
    """What leads from the version before to *version*."""

    version: int
    name: str
    steps: tuple[Step, ...]

    @property
    def checksum(self) -> str:
        """Return a digest of all its steps."""
        text = "".join(f"{step.name}\n{step.text}" for step in self.steps)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """Return all versions, the first one first."""
    folders = [item for item in _root().iterdir() if item.is_dir() and item.name[:4].isdigit()]
    return tuple(
        Migration(int(folder.name[:4]), folder.name[5:], _steps(folder))
        for folder in sorted(folders, key=lambda item: item.name)
    )


def ledger() -> Step:
    """Return the step that creates the table of what was applied."""
    return Step(LEDGER, _root().joinpath(f"{LEDGER}.sql").read_text(encoding="utf-8"))


def tables(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """Yield the name of each table and the statement that creates it."""
    for migration in migrations():
        for step in migration.steps:
            if step.table:
                yield step.table, next(step.statements(config))


def ages(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """Yield the name of each table whose rows have an age at which they go, and the expression for when that is."""
    for table, statement in tables(config):
        if age := _TTL.search(statement):
            yield table, age[1]


def views() -> tuple[Step, ...]:
    """Return the steps that create materialised views, in the order in which they are made."""
    return tuple(step for migration in migrations() for step in migration.steps if step.view)


def _steps(folder: Traversable) -> tuple[Step, ...]:
    texts = {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda item: item.name)
        if file.name.endswith(".sql")
    }
    return tuple(Step(name, _SELECT_OF.sub(lambda found: _select(texts[found[1]]), text)) for name, text in texts.items())


def _select(text: str) -> str:
    """Return what the materialised view of *text* selects."""
    found = _VIEW.search(text)
    if found is None:
        raise ValueError(f"no materialised view in {text[:80]!r}")
    return text[found.end() :].strip().rstrip(";")


def _bare(text: str) -> str:
    """Return *text* without comments and white space."""
    return re.sub(r"--[^\n]*", "", text).strip()


def _root() -> Traversable:
    return files(__package__).joinpath("sql")
