"""Write the generated files.  ``python -m headwatch_dashboards.build [FOLDER]``; the same input gives the same bytes.

``grafana/`` below it has the layout of Grafana's provisioning folder, ``prometheus/`` has files of rules, so that both can be
copied or mounted as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from headwatch_dashboards.alerts import Place, alert_yaml
from headwatch_dashboards.board import panel_id
from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.prometheus import (
    GRAFANA_URL,
    alertmanager_yaml,
    drift_rules,
    grounding_rules,
    health_rules,
    rules_yaml,
)
from headwatch_dashboards.provisioning import datasource_yaml, provider_yaml

DEFAULT_FOLDER = Path("dashboards")
DASHBOARDS = "grafana/dashboards/headwatch"
"""Below it lies each dashboard, named after its slug."""


def generated_files(grafana_url: str = GRAFANA_URL) -> dict[str, str]:
    """Return what is generated: path below the folder to text.  Links from Prometheus lead to *grafana_url*."""
    built = {board.slug: board.build() for board in BOARDS}

    def panel_of(place: Place) -> int:
        return panel_id(built[place.board], place.panel)

    return {
        **{
            f"{DASHBOARDS}/{slug}.json": json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
            for slug, dashboard in built.items()
        },
        "grafana/dashboards/headwatch.yaml": provider_yaml(),
        "grafana/datasources/headwatch.yaml": datasource_yaml(),
        "grafana/alerting/headwatch.yaml": alert_yaml(panel_of),
        "prometheus/headwatch.rules.yaml": rules_yaml("headwatch", (*drift_rules(), *health_rules()), grafana_url),
        "prometheus/headwatch-without-drift.rules.yaml": rules_yaml("headwatch-without-drift", grounding_rules(), grafana_url),
        "prometheus/alertmanager.example.yaml": alertmanager_yaml(),
    }


def write(folder: Path, grafana_url: str = GRAFANA_URL) -> list[Path]:
    """Write the generated files below *folder* and return their paths."""
    written = []
    for name, text in generated_files(grafana_url).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def differences(folder: Path) -> list[str]:
    """Return what is wrong with the files below *folder*: missing, or not what is generated now."""
    found = []
    for name, text in generated_files().items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing; `headwatch dashboards build` writes it")
        elif path.read_text(encoding="utf-8") != text:
            found.append(f"{path}: not what the code generates; run `headwatch dashboards build`")
    return found


if __name__ == "__main__":
    for written_path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER):
        sys.stdout.write(f"{written_path}\n")
