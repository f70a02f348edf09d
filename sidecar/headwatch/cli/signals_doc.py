"""Writes the table of docs/signals.md from the definitions: ``python -m headwatch.cli.signals_doc docs/signals.md``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.drift.signals import SIGNALS

if TYPE_CHECKING:
    from headwatch.drift.signals import SignalDefinition

BEGIN = "<!-- The table between these lines is written by `python -m headwatch.cli.signals_doc docs/signals.md`. -->\n"
END = "<!-- End of what is written. -->\n"
_COLUMNS = "| signal | definition, for one request | bad | floor | what it cannot tell |\n|---|---|---|---|---|\n"
_BAD = {-1: "less", 0: "either", 1: "more"}


def render() -> str:
    """Return the table, one row for each signal."""
    return _COLUMNS + "".join(map(_row, SIGNALS.values()))


def written(page: str) -> str:
    """Return *page* with the table between its two lines as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render()}\n{END}{after}"


def _row(signal: SignalDefinition) -> str:
    name = f"`{signal.name}<source>`" if signal.name.endswith(".") else f"`{signal.name}`"
    unit = "" if signal.unit == "1" else f" {signal.unit}"
    what = f"{signal.what} ({signal.source})" if signal.source else signal.what
    return f"| {name} | {what} | {_BAD[signal.direction]} | {signal.floor:g}{unit} | {signal.blind} |\n"


def main() -> int:
    """Write the page that the command line names."""
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
