"""What the demo prints when it is done: the table of phases, and what to open and ask next."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from headwatch.client import request_field
from headwatch.demo.servers import INTERVAL_WINDOWS, SERVED_MODEL, WINDOW_REQUESTS

if TYPE_CHECKING:
    from rich.console import Console

    from headwatch.demo.readback import DemoResult
    from headwatch.demo.servers import Addresses

_NONE = "none"


def print_result(result: DemoResult, output: Console) -> None:
    """Print the phases as a table, and the totals in one line."""
    table = Table(title="Does the model still read its documents?", title_justify="left")
    table.add_column("phase", no_wrap=True)
    for name in ("requests", "retrieval heads", "all heads", "document mass"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in result.phases:
        table.add_row(
            phase.name.replace("_", " "),
            str(phase.requests),
            _mean(phase.grounding_ratio_retrieval_heads_mean, phase.grounding_ratio_retrieval_heads_ci95),
            _mean(phase.grounding_ratio_mean, phase.grounding_ratio_ci95),
            _number(phase.document_mass_mean),
        )
    output.print()
    output.print(table)
    output.print("Grounding ratio over the calibrated retrieval heads and over all heads, with half of its 95 % interval; "
                 "none: the requests had no documents.")  # fmt: skip
    output.print(f"{result.requests} requests, {result.sampled_rows:,} rows, {result.head_summaries:,} head summaries, "
                 f"{result.dropped_frames} frames dropped, {result.otel_rows:,} OpenTelemetry rows, "
                 f"{result.prometheus_samples} Prometheus samples")  # fmt: skip


def print_incidents(result: DemoResult, output: Console) -> None:
    """Print what was opened, and in which phase."""
    table = Table(title="What headwatch paged", title_justify="left")
    for name in ("phase", "class", "cause"):
        table.add_column(name, no_wrap=True)
    table.add_column("windows", justify="right", no_wrap=True)
    table.add_column("incident", no_wrap=True)
    for incident in result.incidents:
        table.add_row(
            incident.phase.replace("_", " "), incident.drift_class, incident.cause.replace("_", " "),
            str(incident.opened_after_windows), incident.id,
        )  # fmt: skip
    output.print()
    output.print(table if result.incidents else "headwatch paged nobody.")
    output.print(f"Windows of {WINDOW_REQUESTS} requests, counted from the start of the phase; promised: one false page in "
                 f"{INTERVAL_WINDOWS:,.0f} windows.", soft_wrap=True)  # fmt: skip


def print_environment(output: Console, work_dir: Path) -> None:
    """Print what a shell needs for the commands that an incident names."""
    line = f"export HEADWATCH_CONFIG={work_dir / 'headwatch.toml'} PATH={Path(sys.executable).parent}:$PATH"
    output.print(f"to run its commands: {line}", markup=False, highlight=False, soft_wrap=True)


def print_invitation(output: Console, addresses: Addresses, work_dir: Path) -> None:
    """Print what to open and what to ask while the servers stay up."""
    lines = [
        "",
        "The servers stay up; Ctrl-C ends them.",
        f"  open   {addresses.sidecar}/metrics",
        f"         {addresses.sidecar}/api/v1/arms",
        f"         {addresses.sidecar}/api/v1/requests?limit=5",
        f"         {addresses.sidecar}/api/v1/heads?arm=healthy&feature=lookback",
        f"         {addresses.sidecar}/api/v1/incidents",
        f"  logs   {work_dir}/vllm.log and {work_dir}/sidecar.log",
        f"  change headwatch control off --config {work_dir}/headwatch.toml   (then show, on, audit)",
        "",
        "Ask something yourself, and name the document that the answer should come from:",
        "",
        curl_example(addresses),
        "",
        "then look at its grounding ratio:",
        "",
        f"curl -s '{addresses.sidecar}/api/v1/requests?arm=mine&limit=1'",
    ]
    for line in lines:
        output.print(line, markup=False, highlight=False, soft_wrap=True)


def curl_example(addresses: Addresses) -> str:
    """Return a shell command that asks one question about one named document."""
    text = "The ferry to the northern island leaves the old quay at a quarter past seven. On Sundays it leaves at nine."
    body = {
        "model": SERVED_MODEL,
        "max_tokens": 24,
        "messages": [
            {"role": "system", "content": f"Answer from the document. Document: {text}"},
            {"role": "user", "content": "When does the ferry leave on Sundays?"},
        ],
        "vllm_xargs": request_field(documents=[{"id": "ferry", "text": text}], route="try", arm="mine"),
    }
    return (f"curl -s {addresses.vllm}/v1/chat/completions -H 'Content-Type: application/json' -d '"
            + json.dumps(body, indent=1) + "'")  # fmt: skip


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _mean(mean: float | None, interval: tuple[float, float] | None) -> str:
    return _number(mean) if mean is None or interval is None else f"{mean:.3f} ± {(interval[1] - interval[0]) / 2:.3f}"
