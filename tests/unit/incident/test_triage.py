"""What kind of thing a case is.  Each test says which evidence there is, and what an engineer would conclude from it."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from headwatch.drift.signals import SIGNALS
from headwatch.findings import CLASSES, DeployEvent
from headwatch.incident.facts import Facts
from headwatch.incident.severity import louder, pages, severity
from headwatch.incident.table import LEAST, ROWS
from headwatch.incident.telling import tells_apart
from headwatch.incident.triage import triage

from .cases import MINUTE, START, canary, case, event, evidence, heads, signal, telemetry, traffic

PASSED, FAILED = canary(failed=False), canary(failed=True, hint="weights")


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (signal("documents_absent", 0.02, 0.6), "documents_absent"),
        (signal("documents_unresolved", 0.0, 0.4), "documents_unresolved"),
        (signal("stale_age_days", 10, 200), "stale_documents"),
        (signal("source_share.wiki", 1.1, 0.4), "source_broken"),
        (signal("source_presence.wiki", 0.9, 0.1), "source_broken"),
        (signal("document_count", 5, 2), "fewer_documents"),
        (signal("document_wholeness", 1.0, 0.35), "truncated_documents"),
        (signal("grounding_ratio_retrieval", 0.6, 0.4), "wrong_documents"),
        (signal("document_mass", 0.3, 0.2), "documents_ignored"),
        (signal("document_mass_retrieval", 0.6, 0.4), "documents_ignored"),
        (signal("other_tenant_mass", 0.0, 0.1), "other_tenant"),
        (signal("forbidden_mass", 0.0, 0.1), "forbidden_documents"),
        (signal("unreliable_mass", 0.0, 0.1), "unreliable_documents"),
    ],
)
def test_a_figure_of_retrieval_that_moved_is_retrieval_with_its_cause(found, cause):
    told = triage(case(heads(), found, run=PASSED))
    assert (told.drift_class, told.cause) == ("retrieval", cause)
    assert told.confidence > 0.5
    assert pages(told)


@pytest.mark.parametrize("definition", [one for one in SIGNALS.values() if one.direction], ids=lambda one: one.name)
def test_every_signal_that_gets_worse_by_itself_can_wake_somebody(definition):
    name = definition.name + ("wiki" if definition.name.endswith(".") else "")
    worse = (0.1, 0.9) if definition.direction > 0 else (0.9, 0.1)
    told = triage(case(signal(name, *(100 * figure for figure in worse)), run=PASSED))
    assert told.drift_class in {"retrieval", "injection"}
    assert pages(told)


@pytest.mark.parametrize(
    ("found", "cause"),
    [(signal("history_mass", 0.1, 0.6), "history_preferred"), (signal("rank_middle_share", 0.9, 0.2), "lost_in_the_middle")],
)
def test_what_other_questions_may_bring_about_too_pages_with_traffic_as_the_runner_up(found, cause):
    told = triage(case(heads(), found, run=PASSED))
    assert (told.drift_class, told.cause, told.runner_up) == ("retrieval", cause, "traffic")
    assert 0.4 < told.confidence < 0.5
    longer = triage(case(heads(), found, run=PASSED, traffic=(traffic("asked_length", 90, 500),)))
    assert not pages(longer), "a longer conversation draws more mass by itself"


def test_what_moves_from_one_end_of_the_list_to_the_other_is_its_order_and_not_the_middle():
    moved = (signal("rank_first_share", 1.6, 0.8), signal("rank_last_share", 0.7, 1.5), signal("rank_middle_share", 0.9, 0.6))
    told = triage(case(heads(), *moved, run=PASSED))
    assert (told.drift_class, told.cause) == ("retrieval", "rank_order")
    assert not any("lost_in_the_middle" in one for one in told.why)


@pytest.mark.parametrize("hint", ["weights", "precision", "template", "layer", "head", "adapter"])
def test_a_failed_canary_is_the_model_whatever_else_moved_and_its_hint_is_the_cause(hint):
    told = triage(case(heads(), signal("documents_absent", 0.02, 0.6), run=canary(failed=True, hint=hint)))
    assert (told.drift_class, told.cause, told.runner_up) == ("model", hint, "retrieval")
    assert "from layer 7" in told.sentence


def test_a_failed_canary_without_a_hint_is_the_model_all_the_same():
    told = triage(case(evidence("canary", "needle-2", 0, 0.4, route="")))
    assert (told.drift_class, told.cause) == ("model", "weights")


def test_a_system_prompt_that_vanished_is_the_model_though_fixed_prompts_pass():
    told = triage(case(heads(), run=PASSED, traffic=(traffic("template:hr", 0.97, 0.0),)))
    assert (told.drift_class, told.cause) == ("model", "system_prompt")


def test_a_changed_chat_template_is_named_by_the_canary_and_not_by_the_system_prompt():
    told = triage(case(heads(), run=canary(failed=True, hint="template"), traffic=(traffic("template:hr", 0.97, 0.0),)))
    assert (told.drift_class, told.cause) == ("model", "template")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (telemetry("capture_up", 1, 0.5), "capture_down"),
        (telemetry("frames_missing_share", 0, 0.2), "frames_lost"),
        (telemetry("refused_layers", 0, 3), "layers_refused"),
        (telemetry("clock_skew_seconds", 0, 240), "clock_skew"),
        (telemetry("step_stride", 8, 32), "sampling_changed"),
    ],
)
def test_a_fault_of_telemetry_that_began_with_the_event_explains_it(fault, cause):
    told = triage(case(heads(), signal("grounding_ratio", 0.6, 0.5), run=PASSED, telemetry=(fault,)))
    assert (told.drift_class, told.cause) == ("telemetry", cause)


def test_how_many_requests_are_sampled_explains_heads_and_no_figure_that_is_worse():
    """A rate moves no mean: what is read less while it is changed is read less."""
    rate = telemetry("sample_rate", 1.0, 0.1)
    assert triage(case(heads(), run=PASSED, telemetry=(rate,))).cause == "sampling_changed"
    less, drawn = signal("grounding_ratio", 0.6, 0.5), signal("instruction_focus", 0.5, 0.3)
    for worse, expected in (less, "retrieval"), (drawn, "injection"):
        told = triage(case(heads(), worse, run=PASSED, telemetry=(rate,)))
        assert (told.drift_class, told.runner_up) == (expected, "telemetry")
        rows_too = triage(case(heads(), worse, run=PASSED, telemetry=(rate, telemetry("step_stride", 8, 32))))
        assert rows_too.drift_class == "telemetry", "other rows are other means"


def test_a_fault_of_telemetry_that_began_later_explains_nothing():
    later = telemetry("frames_missing_share", 0, 0.2, since_ns=START + 5 * MINUTE)
    told = triage(case(signal("documents_absent", 0.02, 0.6), run=PASSED, telemetry=(later,)))
    assert told.drift_class == "retrieval"


def test_lost_frames_do_not_excuse_a_failed_canary():
    told = triage(case(heads(), run=FAILED, telemetry=(telemetry("frames_missing_share", 0, 0.2),)))
    assert told.drift_class == "model"


def test_an_outage_that_came_with_a_new_engine_does_not_hide_that_it_computes_otherwise():
    told = triage(case(heads(), run=FAILED, telemetry=(telemetry("capture_up", 1, 0),)))
    assert (told.drift_class, told.runner_up) == ("model", "telemetry")


def test_refused_layers_do_excuse_it_since_they_change_what_a_canary_compares():
    told = triage(case(heads(), run=FAILED, telemetry=(telemetry("refused_layers", 0, 3),)))
    assert (told.drift_class, told.runner_up) == ("telemetry", "model")


@pytest.mark.parametrize("fault", [telemetry("capture_up", 1, 0), telemetry("frames_missing_share", 0, 0.2)])
def test_a_worker_that_was_away_does_not_make_documents_absent(fault):
    told = triage(case(signal("documents_absent", 0.0, 0.9), run=PASSED, telemetry=(fault,)))
    assert (told.drift_class, told.runner_up) == ("retrieval", "telemetry")


def test_attention_taken_from_the_instructions_is_an_injection_before_it_is_retrieval():
    told = triage(case(heads(), signal("instruction_focus", 0.5, 0.3), signal("unread_share", 0.1, 0.4), run=PASSED))
    assert (told.drift_class, told.runner_up) == ("injection", "retrieval")
    assert severity(told, event(heads())) == "critical"


def test_an_error_page_that_asks_to_sign_in_is_a_broken_source_and_no_injection():
    """Measured: one of three sources answers with an error page; its share falls a little later than the instructions' does."""
    moved = (("source_share.wiki", 1.115, 0.668, -1.4), ("source_share.archive", 0.753, 1.089, 1.7))
    unsure = [msgspec.structs.replace(signal(*one), log10_evidence=1.1) for one in moved]
    seen = (signal("instruction_focus", 0.813, 0.703, -6.3), signal("capture_by_document", 0.42, 1.02, 4.0), *unsure)
    told = triage(case(heads(), *seen, run=PASSED))
    assert (told.drift_class, told.cause, told.runner_up) == ("retrieval", "source_broken", "injection")


def test_text_in_disorder_takes_from_the_instructions_too_and_is_read_less_so_it_is_retrieval():
    """Measured: the words of every document shuffled."""
    seen = (signal("instruction_focus", 0.81, 0.76, -3.5), signal("capture_by_document", 0.42, 1.133, 4.8),
            signal("document_mass", 0.372, 0.269, -4.3), signal("grounding_ratio", 0.132, 0.084, -2.8))  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED))
    assert (told.drift_class, told.runner_up) == ("retrieval", "injection")


def test_heads_alone_with_a_fresh_canary_that_passes_are_traffic_and_wake_nobody():
    told = triage(case(heads(), run=PASSED))
    assert (told.drift_class, told.cause) == ("traffic", "topics")
    assert not pages(told)


def test_heads_alone_where_no_fixed_prompts_are_sent_are_told_as_what_they_are_undecided():
    told = triage(case(heads(), run=None))
    assert (told.drift_class, told.runner_up) == ("model", "traffic")
    assert told.confidence < 0.5
    assert "cannot be told apart" in told.sentence
    assert "canary.endpoint" in told.tells_apart


def test_heads_alone_wait_for_the_next_fixed_prompt_where_such_are_sent():
    """A changed model pages by its failed canary; until then nobody is woken for what may be other questions."""
    told = triage(case(heads(), heads("legal"), run=canary(failed=False, time_ns=START - MINUTE)))
    assert (told.drift_class, told.runner_up) == ("traffic", "model")
    assert not pages(told)
    assert told.confidence < 0.5
    assert "headwatch canary run" in told.tells_apart


def test_heads_of_all_routes_with_documents_that_are_read_less_are_retrieval():
    """Measured: another index answers all routes with documents of other questions, before the next fixed prompt is due."""
    less = [signal("grounding_ratio_retrieval", 0.25, 0.14, -2.9, route=route) for route in ("hr", "legal")]
    told = triage(case(heads(), heads("legal"), *less, run=canary(failed=False, time_ns=START - MINUTE)))
    assert (told.drift_class, told.runner_up) == ("retrieval", "traffic")


def test_a_release_near_the_start_makes_heads_alone_the_model():
    told = triage(case(heads(), deploys=(DeployEvent(START, "7b v2"),)))
    assert (told.drift_class, told.cause) == ("model", "unexplained")
    assert told.confidence > triage(case(heads())).confidence


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (traffic("band:2k-4k", 0.1, 0.8), "length"),
        (traffic("route:hr", 0.2, 0.9), "route_mix"),
        (traffic("model:7b", 0.9, 0.2), "model_mix"),
        (traffic("adapter:de", 0.0, 0.5), "adapter_mix"),
        (traffic("template_version:4", 0.0, 0.5), "template_versions"),
        (traffic("length", 300, 900), "length"),
        (traffic("load", 1, 9), "load"),
    ],
)
def test_traffic_alone_is_traffic(found, cause):
    told = triage(case(found))
    assert (told.drift_class, told.cause) == ("traffic", cause)


def test_every_row_that_spoke_is_told_in_order_of_classes():
    told = triage(case(heads(), signal("documents_absent", 0.02, 0.6), run=FAILED))
    classes = [line.partition("/")[0] for line in told.why]
    assert classes == sorted(classes, key=CLASSES.index)
    assert len(told.why) == 2


def test_no_evidence_is_a_verdict_too():
    assert triage(case()).drift_class == "traffic"


def test_confidence_is_a_share_whatever_comes_together():
    found = [heads(), *(signal(name, 0.1, 0.9) for name in LEAST if not name.endswith((".", ":")))]
    for run, fault in itertools.product((None, PASSED, FAILED), ((), (telemetry("capture_up", 1, 0),))):
        assert 0 <= triage(case(*found, run=run, telemetry=fault)).confidence <= 1


def test_every_row_can_be_asked_of_an_empty_case_and_stays_silent():
    facts = Facts(case(), LEAST)
    assert not [row for row in ROWS if row.when(facts)]


def test_a_sentence_names_only_what_it_is_given():
    for row in ROWS:
        row.says.format(before="1", after="2", name="n", route="r", note="")
        assert 0 < row.weight < 1


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in CLASSES for b in CLASSES if a != b])
@pytest.mark.parametrize("state", ["none", "older", "passed", "failed"])
def test_there_is_something_that_tells_any_two_classes_apart(one, other, state):
    assert len(tells_apart(one, other, state)) > 20


def test_severity_grows_with_class_and_effect():
    gone = signal("documents_absent", 0.0, 0.9)
    assert severity(triage(case(gone, run=PASSED)), event(gone)) == "critical"
    small, large = signal("document_mass", 0.3, 0.22, -2.5), signal("document_mass", 0.3, 0.1, -6.0)
    assert severity(triage(case(small, run=PASSED)), event(small)) == "warning"
    assert severity(triage(case(large, run=PASSED)), event(large)) == "critical"
    bent = [evidence("canary", "needle", 0.0, deviation, deviation / 1e-5, route="") for deviation in (0.004, 0.4)]
    assert [severity(triage(case(one, run=FAILED)), event(one)) for one in bent] == ["warning", "critical"]
    assert severity(triage(case(traffic("load", 1, 9))), event()) == "info"
    assert louder("warning", "critical") == louder("critical", "info") == "critical"
