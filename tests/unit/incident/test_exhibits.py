"""What a page shows of documents and requests: what moved most, what stands out, and nothing of other routes or models."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from headwatch.findings import DeployEvent, Exhibits, PromptExhibit
from headwatch.incident.exhibits import MAX_DOCUMENTS, MAX_PROMPTS, MAX_REQUESTS, exhibits_of
from headwatch.observed import ObservedDocument, ObservedRequest, ObservedWindow

from .cases import MINUTE, MODEL, ROUTE, START, canary, event, heads, signal

SHORT, LONG = "<256 docs:2 turns:0", "1k-4k docs:5-8 turns:1 tools"


def request(
    number: int, minute: float, shares: dict[str, float], *flags: str, route: str = ROUTE, model: str = MODEL, kind: str = SHORT
):
    documents = tuple(ObservedDocument(name, "wiki", "1", share=share) for name, share in shares.items())
    return ObservedRequest(
        f"r-{number}", f"r-{number}-0", "", START + int(minute * MINUTE), model, route, "measured", 0.4, documents, flags, kind
    )


def windows(*requests: ObservedRequest, **more) -> list[ObservedWindow]:
    """Return the minutes before and after the start, each with the requests that ended in it."""
    return [
        ObservedWindow(
            number=minute, start_ns=START + minute * MINUTE, end_ns=START + (minute + 1) * MINUTE,
            requests=tuple(one for one in requests if minute <= (one.time_ns - START) / MINUTE < minute + 1), **more,
        )
        for minute in range(-5, 6)
    ]  # fmt: skip


def test_documents_that_came_and_went_are_named_with_their_shares_before_and_after():
    seen = windows(
        *(request(n, -3, {"right": 0.75, "same": 0.25}) for n in range(4)),
        *(request(n, 2, {"wrong": 0.75, "same": 0.25}) for n in range(4, 6)),
    )
    found = {one.id: one for one in exhibits_of(event(heads()), seen).documents}
    assert (found["right"].share_before, found["right"].share_after, found["right"].requests) == (0.75, 0.0, 0)
    assert (found["wrong"].share_before, found["wrong"].share_after, found["wrong"].requests) == (0.0, 0.75, 2)
    assert list(found)[-1] == "same", "what did not move comes last"


def test_documents_are_those_of_the_requests_that_stand_out_where_some_do():
    seen = windows(
        request(1, -2, {"a": 1.0}), request(2, 1, {"a": 1.0}), request(3, 2, {"poisoned": 0.9, "a": 0.1}, "instruction_focus")
    )
    shown = exhibits_of(event(signal("instruction_focus", 0.5, 0.2)), seen).documents
    assert [(one.id, one.share_before, one.share_after) for one in shown] == [("poisoned", 0.0, 0.9), ("a", 1.0, 0.1)]


def test_where_documents_are_read_less_one_request_does_not_pass_for_all():
    """A request that also stands out in a ratio of shares is one of eight whose documents are told of."""
    seen = windows(
        *(request(number, -2, {"right": 1.0}) for number in range(3)),
        *(request(number, 1, {f"wrong-{number}": 1.0}) for number in range(3, 6)),
        request(6, 2, {"odd": 1.0}, "top_document_share"),
    )  # fmt: skip
    read_less = event(signal("grounding_ratio_retrieval", 0.4, 0.1), signal("top_document_share", 0.5, 0.9))
    found = {one.id: one.share_after for one in exhibits_of(read_less, seen).documents}
    assert found == {"right": 0.0, "odd": 0.25, "wrong-3": 0.25, "wrong-4": 0.25, "wrong-5": 0.25}


def test_where_documents_are_gone_those_that_were_there_are_named_and_nothing_is_made_up():
    seen = windows(request(1, -2, {"a": 1.0}), request(2, 2, {}, "documents_absent"))
    (found,) = exhibits_of(event(signal("documents_absent", 0, 1)), seen).documents
    assert (found.id, found.share_before, found.share_after) == ("a", 1.0, None)


def test_requests_that_stand_out_come_first_and_all_are_of_the_time_since_it_began():
    seen = windows(
        request(1, -1, {}, "documents_absent"), request(2, 1, {}), request(3, 2, {}, "unread_share"),
        request(4, 3, {}, "documents_absent"), request(5, 4, {}),
    )  # fmt: skip
    found = [one.request_id for one in exhibits_of(event(signal("documents_absent", 0, 1)), seen).requests]
    assert found == ["r-4", "r-3", "r-5", "r-2"]


def test_where_documents_are_read_less_the_least_grounded_requests_come_first():
    ratios = {1: 0.4, 2: 0.1, 3: None, 4: 0.2}
    seen = windows(*(replace(request(n, n, {}), grounding_ratio=ratio) for n, ratio in ratios.items()))
    found = exhibits_of(event(signal("grounding_ratio", 0.5, 0.3)), seen).requests
    assert [one.request_id for one in found] == ["r-2", "r-4", "r-1", "r-3"]


def test_only_the_routes_and_the_model_of_the_evidence_are_shown():
    seen = windows(
        request(1, 1, {"a": 1.0}, route="legal"), request(2, 1, {"b": 1.0}, model="other"), request(3, 1, {"c": 1.0})
    )
    shown = exhibits_of(event(heads()), seen)
    assert [one.request_id for one in shown.requests] == ["r-3"]
    assert [one.id for one in shown.documents] == ["c"]


def test_every_route_gets_a_turn_where_several_are_concerned():
    crowd = [request(n, 1 + n / 100, {}, "documents_absent") for n in range(20)]
    seen = windows(*crowd, request(99, 1, {}, route="legal"))
    found = exhibits_of(event(heads(), heads("legal")), seen).requests
    assert len(found) == MAX_REQUESTS
    assert "r-99" in {one.request_id for one in found[:2]}


def test_a_request_says_of_which_kind_its_prompt_is():
    shown = exhibits_of(event(heads()), windows(request(1, 1, {}, kind=LONG), request(2, 2, {}, kind="")))
    assert [one.kind for one in shown.requests] == ["", LONG]


@pytest.mark.parametrize("name", ["unreliable_mass", "forbidden_mass", "other_tenant_mass"])
def test_prompts_that_draw_labelled_documents_are_counted_by_kind_and_route(name):
    seen = windows(
        *(request(n, 1 + n / 10, {}, name, kind=LONG) for n in range(3)), request(4, 2, {}, name, route="legal"),
        request(5, 2, {}, kind=LONG), request(6, -2, {}, name, kind=LONG), request(7, 3, {}, "unread_share"),
    )  # fmt: skip
    found = event(signal(name, 0.0, 0.4), signal(name, 0.0, 0.4, route="legal"), signal("unread_share", 0.1, 0.3))
    assert exhibits_of(found, seen).prompts == (PromptExhibit(LONG, ROUTE, 3), PromptExhibit(SHORT, "legal", 1))


def test_of_other_signals_no_prompts_are_counted():
    """A request that names no document is told by its route; what its prompt looks like explains nothing."""
    seen = windows(request(1, 1, {}, "documents_absent", "forbidden_mass"))
    assert exhibits_of(event(signal("documents_absent", 0, 1)), seen).prompts == ()


def test_kinds_of_prompts_are_bounded():
    seen = windows(*(request(n, 1, {}, "forbidden_mass", kind=f"kind {n:02d}") for n in range(20)))
    found = exhibits_of(event(signal("forbidden_mass", 0, 0.4)), seen).prompts
    assert [one.kind for one in found] == [f"kind {n:02d}" for n in range(MAX_PROMPTS)]


def test_an_incident_of_an_earlier_version_has_no_kinds_and_is_read():
    request = {"request_id": "r", "engine_id": "e", "trace_id": "", "time_ns": 1, "route": "", "state": "absent"}
    kept = {"documents": [], "requests": [{**request, "grounding_ratio": None}], "canary": None, "deploys": []}
    found = msgspec.json.decode(msgspec.json.encode(kept), type=Exhibits)
    assert (found.requests[0].kind, found.prompts) == ("", ())


def test_documents_are_bounded():
    seen = windows(request(1, 1, {f"d{n}": 1.0 for n in range(40)}))
    assert len(exhibits_of(event(heads()), seen).documents) == MAX_DOCUMENTS


def test_the_canary_that_failed_first_and_releases_near_the_start_are_shown():
    early, late = canary(failed=True, time_ns=START + MINUTE), canary(failed=True, time_ns=START + 3 * MINUTE)
    near, far = DeployEvent(START - MINUTE, "v2"), DeployEvent(START - 120 * MINUTE, "v1")
    seen = windows(canaries=(late, early, canary(failed=False, time_ns=START - MINUTE)), deploys=(near,))
    shown = exhibits_of(event(heads()), seen, deploys=(far, near))
    assert shown.canary == early
    assert shown.deploys == (near,)


def test_no_windows_are_no_exhibits():
    shown = exhibits_of(event(heads()), [])
    assert (shown.documents, shown.requests, shown.canary, shown.deploys) == ((), (), None, ())
