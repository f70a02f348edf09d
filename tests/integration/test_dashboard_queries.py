"""Every query of the dashboards, and of the alert rules, on a real store."""

from __future__ import annotations

import json
import time

import pytest

from headwatch_dashboards.alerts import RULES
from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.lint import panels
from headwatch_dashboards.macros import QueryRange, expand
from headwatch_dashboards.queries import alert, drift, grounding, heads, health, incidents
from headwatch_dashboards.query_check import DEFAULT_VARIABLES, connect, run_queries, run_rules

from .dashboard_rows import HEADS, LAYERS, MINUTES, REQUESTS_A_MINUTE, filled_store

pytestmark = pytest.mark.store

NOW = int(time.time())
RANGE = QueryRange(NOW - 3600, NOW + 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    client = connect(filled_store(tmp_path_factory.mktemp("store") / "filled", NOW))
    yield client
    client.close()


@pytest.fixture
def dashboards():
    return [json.loads(json.dumps(board.build())) for board in BOARDS]


def rows(store, sql, query_range=RANGE, **variables):
    result = store.query(expand(sql, query_range, {**DEFAULT_VARIABLES, **variables}))
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


def titled(dashboards, title):
    return next(panel for dashboard in dashboards for panel in panels(dashboard) if panel["title"] == title)


def problems(dashboards, store, **options):
    return [
        f"{report.where}: {report.problem}"
        for dashboard in dashboards for report in run_queries(dashboard, store, RANGE, **options) if report.problem
    ]  # fmt: skip


def test_every_query_returns_rows(dashboards, store):
    """On a store with half an hour of traffic no panel, no variable, no marks and no rule stays empty."""
    reports = [report for dashboard in dashboards for report in run_queries(dashboard, store, RANGE)]
    rules = run_rules(store, RANGE)
    assert [report for report in (*reports, *rules) if report.problem] == []
    asked = sum(variable["type"] == "query" for dashboard in dashboards for variable in dashboard["templating"]["list"])
    assert len(reports) == sum(len(list(panels(dashboard))) + 1 for dashboard in dashboards) + asked
    assert len(rules) == len(RULES) == 7


def test_choosing_route_model_and_phase_narrows(dashboards, store):
    """A chosen route and model still give rows in every panel; a route that does not exist empties those about requests."""
    assert problems(dashboards, store, variables={"route": ("qa", "it's"), "model": ("tiny",), "phase": ("decode",)}) == []
    empty = problems(dashboards, store, variables={"route": ("nowhere",)})
    assert any("Grounding ratio by route" in problem for problem in empty)
    assert not any("Query rows" in problem for problem in empty)


def test_a_column_that_does_not_exist_is_found(dashboards, store):
    """A misspelt column is reported with its panel."""
    query = titled(dashboards, "Grounding ratio by route")["targets"][0]
    query["rawSql"] = query["rawSql"].replace("r.grounding_ratio]", "r.grounding_ration]")
    (problem,) = problems(dashboards, store)
    assert "Grounding ratio by route" in problem
    assert "refused by the store" in problem
    assert "grounding_ration" in problem


def test_a_metric_that_nobody_writes_is_found(dashboards, store):
    """A query that is valid and can never return anything is reported."""
    query = titled(dashboards, "Overhead of capture")["targets"][0]
    query["rawSql"] = query["rawSql"].replace("capture.overhead", "capture.overheat")
    number = titled(dashboards, "Overhead of capture")["id"]
    assert problems(dashboards, store) == [f"headwatch-health: panel {number} 'Overhead of capture': returned no rows"]


def test_settings_for_a_column_that_the_query_does_not_return_are_found(dashboards, store):
    """A panel that names a column which its query does not have would silently lose its settings."""
    titled(dashboards, "Exporters")["fieldConfig"]["overrides"][0]["matcher"]["options"] = "healthy"
    titled(dashboards, "Document share by source")["options"]["xField"] = "origin"
    titled(dashboards, "Grounding by layer and head")["transformations"][0]["options"]["rowField"] = "depth"
    found = problems(dashboards, store)
    assert [column for problem in found for column in ("healthy", "origin", "depth") if column in problem] == [
        "origin", "depth", "healthy",
    ]


def test_shares_of_states_add_up(store):
    """measured, absent and unresolved are shares of all sampled requests."""
    (shares,) = rows(store, grounding.state_shares())
    assert shares == pytest.approx({"measured": 0.9, "absent": 0.1, "unresolved": 0.0})
    (total,) = rows(store, grounding.request_count())
    assert total["requests"] == MINUTES * REQUESTS_A_MINUTE


def test_document_share_stands_beside_its_equal_split(store):
    """Three documents a request: each source is shown with its own share and a third."""
    found = rows(store, grounding.document_share())
    shares = {row["source"]: (row["share of a document"], row["equal split"]) for row in found}
    assert list(shares) == ["wiki", "handbook", "no source"]
    assert shares["wiki"] == pytest.approx((0.5, 1 / 3), abs=1e-6)


def test_heatmap_has_a_cell_for_each_head_in_order(store):
    """Layers ascend, heads ascend within a layer, and a cell is the mean, within what its code keeps."""
    cells = rows(store, heads.head_grounding())
    assert [(cell["layer"], cell["head"]) for cell in cells] == [
        (layer, f"H{head}") for layer in range(LAYERS) for head in range(HEADS)
    ]
    assert [cell["lookback"] for cell in cells] == pytest.approx([0.1 * (cell["layer"] + 1) for cell in cells], rel=3.4e-4)
    assert rows(store, heads.head_grounding(), phase=("prefill",)) == []


def test_heads_that_fell_are_ranked_by_effect(store):
    """The later half of the requests lies well below the earlier one, the worst head first."""
    effects = [row["effect"] for row in rows(store, heads.worst_heads())]
    assert effects == sorted(effects)
    assert len(effects) == LAYERS * HEADS
    assert effects[-1] < -1


def test_counters_are_shown_as_what_they_grew_by(store):
    """Cumulative counters become growth in each interval, from zero where the worker started inside the range."""
    grown = rows(store, health.rows_over_time())
    sent = [row["rows"] for row in grown if row["fate"] == "sent"]
    assert sent == pytest.approx([38.0] * MINUTES)
    errors = {row["reason"]: row["errors"] for row in rows(store, health.errors_by_reason())}
    assert errors == {"total": MINUTES + 8, "layout": MINUTES, "document_not_in_prompt": 8}
    assert next(iter(errors)) == "total"


def test_overhead_is_a_share(store):
    """Half a second of capture in fifty seconds of steps is one per cent."""
    assert {row["overhead"] for row in rows(store, health.overhead_over_time())} == {0.01}


def test_incidents_are_shown_as_they_last_were_live_ones_first(store):
    """Two are closed, one is silenced, one is open and told of."""
    found = rows(store, incidents.incidents())
    assert [(row["incident"][-1], row["state"], row["told"]) for row in found] == [
        ("1", "open", "grafana"), ("4", "open", "silenced: load test"),
        ("3", "resolved", "grafana"), ("2", "resolved", "grafana"),
    ]  # fmt: skip
    assert {row["route"] for row in found} == {"qa"}
    assert rows(store, incidents.incidents(), route=("nowhere",)) == []
    later = QueryRange(NOW + 3600, NOW + 7200)
    assert [row["incident"][-1] for row in rows(store, incidents.incidents(), later)] == ["1", "4"]


def test_heads_that_an_incident_names_are_listed_by_effect(store):
    found = [row for row in rows(store, incidents.named_heads()) if row["incident"].endswith("1")]
    assert [(row["layer"], row["head"], row["feature"]) for row in found] == [(0, 0, "lookback"), (0, 1, "lookback")]
    assert {row["effect"] for row in found} == {-3.0}


def test_requests_that_an_incident_names_are_listed_with_the_kind_of_their_prompts(store):
    found = rows(store, incidents.named_requests())
    assert {row["incident"][-1] for row in found} == {"1", "2", "3", "4"}
    (row,) = [row for row in found if row["incident"].endswith("1")]
    assert (row["request"], row["route"], row["kind of prompt"]) == ("chatcmpl-1", "support", "1k-4k docs:3-4 turns:0")
    assert (row["state"], row["grounding ratio"]) == ("measured", 0.2)


def test_precision_is_of_pages_that_were_ruled(store):
    """Four paged; one was true and one false, so half; the others wait for a ruling."""
    (row,) = rows(store, incidents.precision())
    assert row == {
        "class": "retrieval", "pages": 4, "true": 1, "false": 1, "known change": 0, "not ruled": 2, "precision": 0.5,
    }  # fmt: skip


def test_the_clock_stands_under_its_line(store):
    found = rows(store, drift.clock_over_time())
    assert {row["pages at"] for row in found} == {4.6}
    assert max(row["clock"] for row in found) == pytest.approx(0.1 * (MINUTES - 1))
    (state,) = rows(store, drift.detection_state())
    assert state == {"state": "watching"}


def test_evidence_names_its_place_and_a_canary_its_excess(store):
    places = {row["place"] for row in rows(store, drift.evidence_over_time())}
    assert {place.partition(" · ")[0] for place in places} == {"lookback", "entropy"}
    excess = {row["prompt"]: row["deviation"] for row in rows(store, drift.canary_deviation())}
    assert excess == {"plain": pytest.approx(0.1), "tools": pytest.approx(2.0)}


def test_the_incident_rule_fires_for_what_is_open_told_of_and_not_silenced(store):
    """One series that is 1, and the one that is always there; elsewhere in time only that."""
    def firing(end):
        query_range = QueryRange(end - alert.INCIDENT_RANGE_SECONDS, end)
        return {(row["incident"][-6:], row["class"], row["severity"]): row["open"]
                for row in rows(store, alert.paging_incidents(), query_range)}

    assert firing(NOW) == {("000001", "retrieval", "critical"): 1, ("(none)", "", ""): 0}
    assert firing(NOW + 31 * 86400) == {("(none)", "", ""): 0}


def test_where_another_route_pages_grafana_is_silent(store):
    sql = alert.paging_incidents().replace("'grafana'", "'webhook'")
    assert [row["incident"] for row in rows(store, sql)] == [alert.ALWAYS_ROUTE]


def canaries_behind(store, end, sql=""):
    query_range = QueryRange(end - alert.CANARY_RANGE_SECONDS, end)
    found = {row["sidecar"]: row["intervals"] for row in rows(store, sql or alert.canaries_behind(), query_range)}
    assert found.pop(alert.ALWAYS_ROUTE) == 0
    return list(found.values())


def test_the_canary_rule_fires_three_intervals_after_the_last_completed_run(store):
    """The last one ended twenty minutes before the end of the traffic: four intervals; ten minutes earlier it was two."""
    assert canaries_behind(store, NOW) == pytest.approx([4.0], abs=0.01)
    assert canaries_behind(store, NOW - 600) == pytest.approx([2.0], abs=0.01)
    assert alert.CANARY_INTERVALS == 3
    assert canaries_behind(store, NOW + 3600) == [], "a sidecar that has gone says nothing"


def test_the_canary_rule_rests_while_no_worker_captures(store):
    """That opens an incident of telemetry, and one cause is one page."""
    away = alert.canaries_behind().replace("WHERE up = 1", "WHERE up = 2")
    assert canaries_behind(store, NOW, away) == [0]


def alert_values(store, end=NOW):
    query_range = QueryRange(end - alert.RANGE_SECONDS, end)
    return {row["route"]: row["fell_by"] for row in rows(store, alert.grounding_drop(), query_range)}


def test_alert_sees_the_fall_and_nothing_before_it(store):
    """The fall of the last ten minutes crosses the threshold; ten minutes earlier the same route was at rest."""
    values = alert_values(store)
    assert values[alert.ALWAYS_ROUTE] == 0
    assert values["qa"] > 3
    assert abs(alert_values(store, NOW - 600)["qa"]) < 1


def test_alert_is_silent_on_few_requests(store):
    """With fewer than 20 requests on one side nothing is said, whatever they show."""
    assert alert_values(store, NOW - 600 - 17 * 60)["qa"] == 0


def test_an_empty_range_gives_no_false_figures(store, dashboards):
    """Outside of all traffic panels are empty, not 0, and each rule still has its row."""
    past = QueryRange(NOW - 90_000, NOW - 80_000)
    reports = [report for dashboard in dashboards for report in run_queries(dashboard, store, past)]
    assert {report.problem for report in reports} == {"", "returned no rows"}
    kept = {
        (report.where.partition(":")[0], report.where.partition("'")[2].rstrip("'")) for report in reports if not report.problem
    }  # fmt: skip
    of_one = ("Verdict", "What happened", "Why this class", "Evidence at the opening", "Heads", "Documents", "Requests", "")
    assert kept == {
        ("headwatch-overview", "Incidents"), ("headwatch-overview", "Incidents not resolved"),
        ("headwatch-heads", "Heads that incidents name"), *(("headwatch-incident", title) for title in of_one),
        ("headwatch-health", "Errors by reason"),
    }, "what is open is shown whatever the range is"  # fmt: skip
    assert [report.problem for report in run_rules(store, past)] == [""] * len(RULES)
    assert alert_values(store, NOW - 80_000) == {alert.ALWAYS_ROUTE: 0}


def test_shares_by_rank_and_by_age_stand_beside_an_equal_split(store):
    """Ranks are counted from 1; documents whose client gives no retrieved_at have no age."""
    by_rank = rows(store, grounding.share_by_rank())
    assert [(row["rank"], row["share of a document"]) for row in by_rank] == [
        ("1", pytest.approx(0.5)), ("2", pytest.approx(0.3)), ("3", pytest.approx(0.2)),
    ]  # fmt: skip
    (age,) = rows(store, grounding.share_by_age())
    assert (age["age"], age["share of a document"]) == ("7 to 30 days", pytest.approx(0.25))
    assert [row["equal split"] for row in (*by_rank, age)] == pytest.approx([1 / 3] * 4)


def test_preference_is_a_share_over_an_equal_split(store):
    found = {row["source"]: row["preference"] for row in rows(store, grounding.share_by_source_over_time())}
    assert found == {"wiki": pytest.approx(1.5), "handbook": pytest.approx(0.9), "no source": pytest.approx(0.6)}


def test_routes_are_compared_with_themselves(store):
    """The range begins half an hour before the traffic, so the earlier half has none; one that spans it sees the fall."""
    (whole,) = rows(store, grounding.by_route())
    assert (whole["route"], whole["requests"], whole["absent"]) == ("qa", MINUTES * REQUESTS_A_MINUTE, pytest.approx(0.1))
    (spanning,) = rows(store, grounding.by_route(), QueryRange(NOW - 1200, NOW))
    assert spanning["earlier"] == pytest.approx(0.8, abs=0.02)
    assert spanning["change"] == pytest.approx(-0.3, abs=0.02)


def test_maps_of_both_halves_have_all_heads_and_other_windows(store):
    before, after = (rows(store, heads.feature_of_heads(side)) for side in ("<", ">="))
    assert len(before) == len(after) == LAYERS * HEADS
    assert [cell["mean"] for cell in before] == pytest.approx([cell["mean"] for cell in after], rel=3.4e-4)
    assert rows(store, heads.feature_of_heads("<"), feature=("entropy",)) == []


def test_one_incident_has_everything_that_it_was_opened_on(store):
    """What the page leads to: words, reasons, evidence, heads, documents and requests of that incident alone."""
    one = {"incident": ("hw-0000000001",)}
    (verdict,) = rows(store, incidents.verdict(), **one)
    assert (verdict["state"], verdict["class"], verdict["else it would be"]) == ("open", "retrieval", "model")
    story = {row["what"]: row["answer"] for row in rows(store, incidents.story(), **one)}
    assert story["what happened"] == "Documents of route support are given and not read."
    assert (story["told"], story["ruling"], story["taken or closed by"]) == ("grafana", "none yet", "nobody yet")
    assert rows(store, incidents.reasons(), **one) == [{"reason": "document_mass fell"}]
    names = [row["name"] for row in rows(store, incidents.evidence_at_opening(), **one)]
    assert sorted(names) == ["document_mass", "lookback"]
    assert [(row["layer"], row["head"]) for row in rows(store, incidents.heads(), **one)] == [(0, 0), (0, 1)]
    (document,) = rows(store, incidents.documents(), **one)
    assert (document["document"], document["share before"], document["share after"]) == ("doc-1", 0.5, 0.1)
    assert [row["request"] for row in rows(store, incidents.requests(), **one)] == ["chatcmpl-1"]
    assert rows(store, incidents.story(), incident=("hw-none",)) == []


def test_the_live_count_leaves_out_what_is_silenced(store):
    assert rows(store, incidents.live()) == [{"critical": 1, "warning": 0, "info": 0, "silenced": 1}]


def test_deviation_by_layer_is_of_named_heads(store):
    """The failed prompt names heads of layer 1; the one that passed names none."""
    assert rows(store, drift.canary_layers()) == [{"prompt": "tools", "layer": "L1", "deviation": pytest.approx(0.2)}]


def test_the_spool_is_shown_as_a_share_of_its_room(store):
    assert {row["full"] for row in rows(store, health.spool_over_time())} == {1 / 16}
    assert rows(store, health.spool_now()) == [{"deliveries waiting": 2, "oldest waits": 3}]


def _rule(store, sql, seconds, end):
    found = rows(store, sql, QueryRange(end - seconds, end))
    assert any(alert.ALWAYS_ROUTE in row.values() for row in found), "a rule without a row fails instead of resting"
    return [row for row in found if alert.ALWAYS_ROUTE not in row.values()]


def test_an_incident_names_its_heads_to_whom_it_pages(store):
    (row,) = _rule(store, alert.paging_incidents(), alert.INCIDENT_RANGE_SECONDS, NOW)
    assert row["heads"] == "L0.H0 L0.H1"


def test_data_is_stale_once_nothing_was_written_for_five_minutes(store):
    """Two services of one store stand apart; one that wrote nothing for a day was taken away."""
    def age(end):
        return {row["service"]: row["age"] for row in _rule(store, alert.data_stale(), alert.STALE_RANGE_SECONDS, end)}

    assert 0 <= age(NOW)["vllm"] < alert.STALE_SECONDS
    assert age(NOW + 900)["vllm"] > alert.STALE_SECONDS
    assert age(NOW + 2 * 86_400) == {}


def test_the_spool_and_capture_are_as_they_last_were(store):
    (spool,) = _rule(store, alert.spool_filling(), alert.CANARY_RANGE_SECONDS, NOW)
    assert spool["full"] == 1 / 16
    (worker,) = _rule(store, alert.capture_down(), alert.CANARY_RANGE_SECONDS, NOW)
    assert (worker["worker"], worker["down"]) == ("engine-1 rank 0", 0)
    down = alert.capture_down().replace("last = 0", "last = 1")
    assert [row["down"] for row in _rule(store, down, alert.CANARY_RANGE_SECONDS, NOW)] == [1]


def test_absent_retrieval_is_news_only_where_there_was_some(store):
    """A tenth of the requests name no document, before and after: that is no news. If all of the late ones did, it would be."""
    assert [row["absent"] for row in _rule(store, alert.retrieval_absent(), alert.RANGE_SECONDS, NOW)] == [0]
    late = f"(r.state = 'absent' OR r.time >= $__toTime - INTERVAL {alert.RECENT_SECONDS} SECOND)"
    sql = alert.retrieval_absent().replace("r.state = 'absent'", late)
    assert [row["absent"] for row in _rule(store, sql, alert.RANGE_SECONDS, NOW)] == [1]
    assert [row["absent"] for row in _rule(store, sql, alert.RANGE_SECONDS, NOW - 600 - 17 * 60)] == [0], "too few before"
