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
    problems = list(_problems("dashboard", dashboard, "dashboard"))
    for panel in panels(dashboard):
        kind, where = panel.get("type"), f"panel {panel.get('id')} {panel.get('title', '')!r}"
        problems += _problems(f"{kind}_options", panel.get("options", {}), f"{where} options")
        custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom")
        if custom is not None:
            problems += _problems(f"{kind}_custom", custom, f"{where} custom")
    return problems


def _problems(definition: str, value: Any, where: str) -> Iterator[str]:
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - wanted for this check alone
        from jsonschema.exceptions import best_match  # noqa: PLC0415
    except ImportError as error:
        raise CommandError("jsonschema is not installed: pip install 'headwatch[dashboards]'") from error
    schema = grafana_schema()
    if definition not in schema["definitions"]["Grafana"]["properties"]:
        yield f"{where}: Grafana's schema has no {definition}"
        return
    validator = Draft7Validator(
        {"$ref": f"#/definitions/Grafana/properties/{definition}", "definitions": schema["definitions"]}
    )
    for error in validator.iter_errors(value):
        deepest = best_match([error]) or error
        path = "/".join(str(part) for part in deepest.absolute_path)
        yield f"{where}: {path or '.'}: {deepest.message[:300]}"
