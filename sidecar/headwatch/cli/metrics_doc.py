"""Writes docs/metrics.md from the one table of metrics: ``python -m headwatch.cli.metrics_doc > docs/metrics.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.metrics import METRICS

if TYPE_CHECKING:
    from headwatch.metrics import Metric

HEAD = """\
# Metrics

Generated from `sidecar/headwatch/metrics.py` by `python -m headwatch.cli.metrics_doc > docs/metrics.md`; do not edit.

Names are OpenTelemetry's; the second column of each is what Prometheus sees. Units are UCUM, `1` is a ratio. The definition of
every feature is in [architecture.md](architecture.md). Where the metrics go:

- **ClickHouse**: all of them, in the tables of the OpenTelemetry Collector (`otel_metrics_gauge`, `_sum`, `_exp_histogram`);
  the only place that has series for each layer and head.
- **OTLP**: series of single heads are folded into layer bands (`headwatch.layer_band` instead of layer and head).
- **Prometheus**: the same bands as summaries (`_count` and `_sum`), grounding as histograms with fixed buckets, and the worst
  heads by name. Series of a worker carry its engine's instance as a label as well.

Attention mass says where a head looks, value share what it moves; neither is causation: see [detail.md](detail.md).

Resource attributes: `service.name`, `service.instance.id`, `service.version`. Sums are cumulative and monotonic.
"""
COLUMNS = "| metric | Prometheus | instrument | unit | meaning | attributes |\n|---|---|---|---|---|---|\n"
GROUPS = {
    "attention": "Attention of heads",
    "grounding": "Grounding of requests",
    "capture": "Capture, as the worker reports it",
    "ingest": "Ingest, as the sidecar counts it",
    "drift": "Drift, as detection has it after the last window",
    "canary": "Canaries",
    "incident": "Incidents",
    "pager": "Pagers",
    "spool": "The spool before the store",
    "exporter": "Exporters",
    "endpoint": "The ClickHouse endpoint",
    "text": "Texts of prompts, where they are kept",
}


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n\n{COLUMNS}")
        parts += [_row(metric) for metric in METRICS if metric.name.split(".")[1] == group]
    return "".join(parts)


def _row(metric: Metric) -> str:
    attributes = " ".join(f"`{name}`" for name in metric.attributes)
    return (
        f"| `{metric.name}` | `{metric.prometheus_name}` | {metric.instrument} | `{metric.unit}` | {metric.description} | "
        f"{attributes} |\n"
    )


if __name__ == "__main__":
    print(render(), end="")
