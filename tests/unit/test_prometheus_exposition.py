"""The whole exposition is a golden file: a name, label or help text that changes shows in review.

``HEADWATCH_GOLDEN=write pytest tests/unit/test_prometheus_exposition.py`` writes it anew.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from headwatch.config import PrometheusConfig
from headwatch.metrics import BY_NAME
from headwatch.records import Delivery
from headwatch_exporters.label_limit import MAX_VALUES
from headwatch_exporters.prometheus import PrometheusExporter

from ..contract.deliveries import carried
from ..traffic import EMPTY, delivery, health, worker
from .incidents import found

GOLDEN = Path(__file__).with_name("golden") / "metrics.prom"


@pytest.fixture
def exporter():
    made = PrometheusExporter(PrometheusConfig(layer_bands=2, worst_heads=3))
    yield made
    made.close()


def text(exporter):
    return exporter.render(None)[0].decode()


def value(exporter, series):
    return float(re.search(rf"^{re.escape(series)} (\S+)$", text(exporter), re.MULTILINE)[1])


def test_the_exposition_is_the_golden_file(exporter):
    """Sums of floats are rounded: the last digits depend on the processor."""
    for number in (0, 1):
        exporter.export(found(delivery(number)))
    shown = re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.4f}", text(exporter))
    if os.environ.get("HEADWATCH_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


def test_every_name_comes_from_the_table(exporter):
    """No metric is shown that metrics.py does not name."""
    exporter.export(delivery())
    known = {metric.prometheus_name for metric in BY_NAME.values()}
    assert set(re.findall(r"^# TYPE (\S+)", text(exporter), re.MULTILINE)) <= known


def test_openmetrics_is_served_where_it_is_asked_for(exporter):
    """The same content in the other format, as its strict parser reads it."""
    exporter.export(delivery())
    body, content_type = exporter.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name for family in parse_openmetrics(body.decode())}
    assert {"headwatch_grounding_ratio", "headwatch_grounding_requests", "headwatch_attention_lookback"} <= families


def test_counters_and_histograms_accumulate(exporter):
    """Two minutes count twice as much as one."""
    series = 'headwatch_grounding_ratio_count{gen_ai_request_model="smol",headwatch_heads="all",headwatch_route="support"}'
    exporter.export(delivery(0))
    assert value(exporter, series) == 2
    exporter.export(delivery(1))
    assert value(exporter, series) == 4


def test_the_worst_heads_look_back_least(exporter):
    """A head that never looks at the documents comes first; one that defines no lookback is no candidate."""
    sent = delivery()
    for request in sent.requests:
        request.head_means[5, 4, 2] = 0.01
    exporter.export(sent)
    shown = re.findall(r'worst_lookback{.*headwatch_head="(\d+)",headwatch_layer="(\d+)".*} (\S+)', text(exporter))
    assert len(shown) == 3
    worst = min(shown, key=lambda item: float(item[2]))
    assert (worst[:2], float(worst[2])) == (("2", "4"), pytest.approx(0.01))
    assert ("0", "0") not in {item[:2] for item in shown}


def test_what_heads_move_is_shown_by_band(exporter):
    """Shares as summaries, the latest mean norm as a gauge."""
    exporter.export(carried())
    label = 'headwatch_layer_band="0-0",headwatch_phase="decode",headwatch_route="support"'
    shown = text(exporter)
    assert re.search(rf"attention_output_norm{{.*{label}}} 3\.0", shown)
    assert re.search(rf'attention_value_share_count{{.*{label},headwatch_span_kind="document"}} 6\.0', shown)
    assert re.search(rf'attention_value_share_sum{{.*{label},headwatch_span_kind="document"}} 4\.5', shown)


def test_a_part_that_fails_leaves_the_rest(exporter, caplog):
    """A broken part is logged; the scrape still serves the others."""
    exporter.export(delivery())
    exporter._heads["smol", "support"] = (np.zeros((2, 2)), np.zeros((3, 3), np.int64))
    shown = text(exporter)
    assert "headwatch_capture_up" in shown
    assert "headwatch_grounding_ratio_bucket" in shown
    assert "worst_lookback" not in shown
    assert "a part of /metrics failed" in caplog.text


def test_a_worker_that_went_silent_is_down(exporter):
    """The last word of a worker that was killed is not taken for its state."""
    sent = delivery()
    exporter.export(replace(sent, time_ns=sent.time_ns + 20_000_000_000, windows=(), requests=()))
    assert 'headwatch_capture_up{gen_ai_request_model="smol",headwatch_rank="0",service_instance_id="engine-1"} 0.0' in text(
        exporter
    )


def test_two_engines_of_one_model_do_not_collide(exporter):
    """Each series appears once."""
    both = health(EMPTY.time_ns, worker())
    both = replace(both, workers=(*both.workers, *health(EMPTY.time_ns, worker("engine-2")).workers))
    exporter.export(Delivery(EMPTY.time_ns, "vllm", (), (), both))
    series = [line.rpartition(" ")[0] for line in text(exporter).splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert sum("headwatch_capture_up{" in line for line in series) == 2


def test_routes_that_clients_make_up_are_bounded(exporter):
    """However many routes clients name, the number of series stays bounded and no request is lost."""
    sent = delivery()
    record = sent.requests[0]
    made_up = tuple(
        replace(record, context=_with_route(record.context, f"route-{number}")) for number in range(MAX_VALUES + 50)
    )
    exporter.export(replace(sent, windows=(), requests=made_up))
    counts = re.findall(r'grounding_requests_total{.*headwatch_route="(.*?)".*} (\S+)', text(exporter))
    assert len(counts) == MAX_VALUES + 1
    assert sum(float(count) for _, count in counts) == MAX_VALUES + 50
    assert dict(counts)["other"] == "50.0"


def _with_route(context, route):
    import msgspec

    return msgspec.structs.replace(context, route=route)
