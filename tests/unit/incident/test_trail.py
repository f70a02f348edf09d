"""Which heads an incident names, in which order, and where their rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headwatch.drift.parts import pool_of
from headwatch.findings import HeadFinding, NamedHead
from headwatch.incident.report import ranked_heads
from headwatch.incident.trail import MAX_HEADS, leads_of, named_heads, span_of
from headwatch.records import Stratum

from ..incidents import OPENED_NS, SECOND, event, evidence, head, incident

if TYPE_CHECKING:
    from headwatch.model import Phase

DECODE, ANY, PREFILL = "smol|rev||support|<512|decode", "smol|rev|||<512|decode", "smol|rev||pooled|prefill"


def named(*found: tuple[str, str, tuple[HeadFinding, ...]], kind: str = "heads") -> list[NamedHead]:
    """Return the heads named by evidence of these strata and routes."""
    pieces = tuple(evidence(stratum=stratum, route=route, heads=heads, kind=kind) for stratum, route, heads in found)
    return named_heads(incident(event=event(evidence=pieces)))


def test_heads_come_by_rank_whatever_evidence_they_are_of():
    found = named((DECODE, "support", (head(1), head(3))), (DECODE, "hr", (head(2), head(0))))
    assert [(one.layer, one.head, one.route) for one in found] == [
        (0, 0, "hr"), (0, 1, "support"), (0, 2, "hr"), (1, 0, "support"),
    ]  # fmt: skip


def test_a_head_is_named_once_for_each_feature_and_route():
    found = named((DECODE, "support", (head(0), head(0, feature="entropy"))), (DECODE, "support", (head(0),)))
    assert [one.feature for one in found] == ["lookback", "entropy"]


@pytest.mark.parametrize(
    ("strata", "phase"),
    [((ANY,), "decode"), ((PREFILL,), "prefill"), ((PREFILL, ANY), "decode"), ((PREFILL, PREFILL), "prefill")],
)
def test_a_head_says_for_which_rows_it_is_named(strata: tuple[str, ...], phase: str):
    (found,) = named(*((stratum, "", (head(0),)) for stratum in strata))
    assert found == NamedHead(0, 0, "lookback", "", phase, "smol")


@pytest.mark.parametrize("route", ["prefill", "decode", "a|prefill", "pooled", ""])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(("model", "language"), [("smol", ""), ("smol", "prefill"), ("a|prefill", "decode")])
def test_the_phase_is_that_of_the_label_whatever_else_is_named_like_one(route: str, phase: Phase, language: str, model: str):
    stratum = Stratum(model, "rev", "prefill", route, "<512", phase, language, language)
    for label, of in ((stratum.label, route), (pool_of(stratum), "")):
        one = evidence(stratum=label, route=of, model=model, heads=(head(0),))
        (found,) = named_heads(incident(event=event(evidence=(one,))))
        assert found.phase == phase, label


def test_a_head_is_of_the_model_of_its_evidence_and_its_rows_are_looked_for_there():
    pieces = tuple(evidence(model=model, heads=(head(0), head(1))) for model in ("smol", "o'ther"))
    opened = incident(event=event(model="smol", evidence=pieces))
    assert [(one.model, one.head) for one in named_heads(opened)] == [("smol", 0), ("o'ther", 0), ("smol", 1), ("o'ther", 1)]
    queries = [lead.sql for lead in leads_of(opened) if lead.what == "head"]
    assert ["model = 'smol'" in sql for sql in queries] == [True, False, True, False]
    assert ["model = 'o\\'ther'" in sql for sql in queries] == [False, True, False, True]


def test_heads_of_a_fixed_prompt_are_none_of_traffic():
    assert named((DECODE, "support", (head(0),)), kind="canary") == []


def test_every_head_that_a_report_shows_has_a_query():
    """Also where the first piece of evidence alone names as many as there are queries."""
    pieces = tuple(
        evidence(name, heads=tuple(head(n, feature=name, log10_evidence=9.0 - n - place / 2) for n in range(16)))
        for place, name in enumerate(("lookback", "entropy"))
    )
    opened = incident(event=event(evidence=pieces))
    shown = [f"layer {one.layer} head {one.head} {one.feature}" for _, one in ranked_heads(opened)[:MAX_HEADS]]
    assert {name.split()[-1] for name in shown} == {"lookback", "entropy"}
    assert [lead.name for lead in leads_of(opened) if lead.what == "head"] == shown


def test_rows_are_looked_for_from_an_hour_before_the_start_to_minutes_after_the_page():
    assert span_of(incident()) == (OPENED_NS - 300 * SECOND - 3600 * SECOND, OPENED_NS + 300 * SECOND)
