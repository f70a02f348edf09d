"""Hold a dashboard against Grafana's own types.

``schema/grafana.schema.json`` is generated from @grafana/schema by ``dashboards/schema/generate.mjs``.  It closes every
object, so that a misspelt key is found, which Grafana itself would silently ignore.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from headwatch.errors import CommandError
from headwatch_dashboards.lint import panels
from headwatch_dashboards.names import DATASOURCE_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator


@functools.cache
def grafana_schema() -> dict[str, Any]:
    """Return the JSON schema with Grafana's definitions."""
    text = files("headwatch_dashboards").joinpath("schema/grafana.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def schema_problems(dashboard: dict[str, Any]) -> list[str]:
    """Return where the dashboard, or the options of one of its panels, do not fit Grafana's types.

    Raises:
        CommandError: jsonschema is not installed.
    """
    problems = list(_problems("dashboard", {**dashboard, "panels": [], "annotations": _own_marks(dashboard)}, "dashboard"))
    # Each panel against the type that it claims to be: against either, a message would speak of the other one.
    rows = [panel for panel in dashboard.get("panels", []) if panel.get("type") == "row"]
    for row in rows:
        problems += _problems("RowPanel", row, f"row {row.get('id')} {row.get('title', '')!r}")
    for panel in panels(dashboard):
        kind, where = panel.get("type"), f"panel {panel.get('id')} {panel.get('title', '')!r}"
        problems += _problems("Panel", panel, where)
        problems += _problems(f"{kind}_options", panel.get("options", {}), f"{where} options")
        fields = panel.get("fieldConfig", {})
        custom = fields.get("defaults", {}).get("custom")
        if custom is not None:
            problems += _problems(f"{kind}_custom", custom, f"{where} custom")
        for override in fields.get("overrides", []):
            settings = {item["id"]: item["value"] for item in override["properties"]}
            own = {key.removeprefix("custom."): value for key, value in settings.items() if key.startswith("custom.")}
            common = {key: value for key, value in settings.items() if not key.startswith("custom.")}
            name = f"{where} override of {override['matcher'].get('options')!r}"
            problems += _problems("FieldConfig", common, name)
            if own:
                problems += _problems(f"{kind}_custom", own, name)
    return problems


def _own_marks(dashboard: dict[str, Any]) -> dict[str, Any]:
    """Return the marks without the queries that a plugin reads: Grafana's type of a mark knows only its own (tags)."""
    marks = dashboard.get("annotations", {})
    listed = [
        {key: value for key, value in mark.items() if key != "target"}
        if mark.get("datasource", {}).get("type") == DATASOURCE_TYPE else mark
        for mark in marks.get("list", [])
    ]  # fmt: skip
    return {**marks, "list": listed}


def _problems(definition: str, value: Any, where: str) -> Iterator[str]:
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - wanted for this check alone
        from jsonschema.exceptions import best_match  # noqa: PLC0415
    except ImportError as error:
        raise CommandError("jsonschema is not installed: pip install 'headwatch[dashboards]'") from error
    definitions = grafana_schema()["definitions"]
    if definition in definitions:
        reference = definition
    elif definition in definitions["Grafana"]["properties"]:
        reference = f"Grafana/properties/{definition}"
    else:
        yield f"{where}: Grafana's schema has no {definition}"
        return
    validator = Draft7Validator({"$ref": f"#/definitions/{reference}", "definitions": definitions})
    for found in validator.iter_errors(value):
        deepest = best_match([found]) or found
        path = "/".join(str(part) for part in deepest.absolute_path)
        yield f"{where}: {path or '.'}: {deepest.message[:300]}"
