"""Traffic from retrieval: what other questions, lengths, languages and documents explain, and what they do not."""

from __future__ import annotations

import msgspec

from headwatch.incident.severity import pages
from headwatch.incident.triage import triage

from .cases import MINUTE, START, canary, case, heads, signal, traffic

PASSED = canary(failed=False)


def test_another_language_without_a_canary_is_traffic():
    told = triage(case(heads(), traffic=(traffic("language:de", 0.0, 0.7),)))
    assert (told.drift_class, told.cause) == ("traffic", "language")


def test_a_little_less_grounding_with_another_language_is_traffic():
    told = triage(case(heads(), signal("grounding_ratio", 0.6, 0.52), run=PASSED, traffic=(traffic("language:de", 0.0, 0.7),)))
    assert told.drift_class == "traffic"
    assert told.runner_up == "retrieval"


def test_shorter_documents_that_are_whole_are_other_documents():
    """Measured: questions about short notes; their documents are read rather better."""
    seen = (signal("tokens_per_document", 133, 87, -5.7), signal("grounding_ratio_retrieval", 0.246, 0.311, 1.8))
    told = triage(case(heads(), *seen, run=PASSED, traffic=(traffic("length", 479, 344),)))
    assert told.drift_class == "traffic"


def test_a_long_mail_above_the_question_moves_every_share_and_is_traffic():
    """Measured: people paste a mail; shares move from the first place to the last as if the ranking were upside down."""
    seen = (
        signal("document_mass", 0.359, 0.255, -6.5), signal("top_document_share", 0.563, 0.425, -3.3),
        signal("rank_first_share", 1.614, 1.141, -2.9), signal("rank_last_share", 0.624, 0.929, 2.5),
        signal("grounding_ratio", 0.124, 0.102, -2.0), signal("instruction_focus", 0.696, 0.79, 2.3),
    )  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED, traffic=(traffic("length", 479, 694), traffic("asked_length", 90, 300))))
    assert (told.drift_class, told.cause) == ("traffic", "length")


def test_documents_that_are_longer_and_read_less_are_retrieval_though_prompts_are_longer():
    """Longer documents draw more mass by themselves: a fall is no matter of their length."""
    longer = (traffic("length", 480, 600),)
    seen = (signal("grounding_ratio", 0.30, 0.21, -6.0), signal("document_tokens", 400, 560, 4.0))
    less = signal("document_mass", 0.36, 0.25, -5.0)
    assert triage(case(heads(), *seen, less, run=PASSED, traffic=longer)).drift_class == "retrieval"
    assert triage(case(heads(), *seen, run=PASSED, traffic=longer)).drift_class == "traffic", "which lowers grounding by itself"


def test_a_long_text_that_is_injected_is_an_injection():
    seen = (signal("instruction_focus", 0.81, 0.66, -5.0), signal("document_tokens", 400, 560, 4.0))
    drawn = signal("capture_by_document", 0.4, 1.3, 5.0)
    longer = (traffic("length", 480, 640),)
    assert triage(case(heads(), *seen, drawn, run=PASSED, traffic=longer)).drift_class == "injection"
    assert triage(case(heads(), *seen, run=PASSED, traffic=longer)).drift_class == "traffic", "all longer do that alike"


def test_more_documents_and_better_ones_wake_nobody():
    fewer_stand_out = signal("top_document_share", 0.54, 0.33)
    assert pages(triage(case(fewer_stand_out, run=PASSED)))
    assert not pages(triage(case(fewer_stand_out, signal("document_count", 3, 6), run=PASSED)))
    assert not pages(triage(case(signal("grounding_ratio", 0.2, 0.3), run=PASSED)))


def test_rare_strata_that_are_watched_together_are_no_second_route():
    """Their evidence has no route: one route and the pool are not several routes."""
    told = triage(case(heads(), heads(""), run=None))
    assert (told.drift_class, told.runner_up) == ("model", "traffic")
    assert told.confidence < 0.5
    assert "several routes" not in " ".join(told.why)


def test_the_same_documents_cut_short_are_retrieval_though_prompts_are_shorter():
    """Measured: the first third of every document."""
    seen = (signal("document_wholeness", 1.0, 0.35), signal("tokens_per_document", 133, 46, -10.9),
            signal("document_mass", 0.359, 0.247, -7.1))  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED, traffic=(traffic("length", 479, 218),)))
    assert (told.drift_class, told.cause) == ("retrieval", "truncated_documents")
    assert told.confidence > 0.8


def test_prompts_that_are_shorter_for_want_of_documents_are_no_traffic():
    gone = (signal("documents_absent", 0.0, 1.0), signal("document_count", 3.0, 0.0))
    told = triage(case(*gone, run=PASSED, traffic=(traffic("length", 480, 63),)))
    assert told.drift_class == "retrieval"
    assert told.confidence > 0.9


def test_reading_that_moves_from_the_first_to_the_last_place_is_the_ranking():
    told = triage(case(signal("rank_first_share", 1.4, 0.7), signal("rank_last_share", 0.7, 1.4), run=PASSED))
    assert (told.drift_class, told.cause) == ("retrieval", "rank_order")


def test_both_ends_of_the_list_read_more_is_no_matter_of_ranking():
    told = triage(case(signal("rank_first_share", 0.7, 1.2), signal("rank_last_share", 0.7, 1.2), run=PASSED))
    assert told.cause != "rank_order"


def test_documents_that_are_gone_are_no_matter_of_language():
    told = triage(case(signal("documents_absent", 0.0, 0.9), run=PASSED, traffic=(traffic("language:de", 0.0, 0.7),)))
    assert told.drift_class == "retrieval"


def test_other_topics_whose_documents_are_read_rather_more_are_traffic():
    """Measured: questions and right documents about other things."""
    seen = (signal("grounding_ratio_retrieval", 0.182, 0.295, 2.5), signal("document_tokens", 404, 360, -2.8),
            signal("instruction_focus", 0.813, 0.845, 1.8))  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED))
    assert (told.drift_class, told.cause, told.runner_up) == ("traffic", "topics", "retrieval")


def test_other_topics_with_shorter_documents_that_hold_a_fifth_less_mass_are_traffic():
    """Measured, by `headwatch compare`, which is sure of small changes."""
    seen = (signal("document_mass", 0.371, 0.291, -3.3), signal("document_tokens", 404, 357, -12.7),
            signal("source_share.archive", 0.758, 1.066, 1.3), signal("source_presence.archive", 1.0, 0.753, -1.8))  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED, traffic=(traffic("length", 480, 441),)))
    assert (told.drift_class, told.runner_up) == ("traffic", "retrieval")


def test_many_a_little_is_no_fault():
    """Measured: other topics again; shares of sources and what is not read moved, and nothing claims by itself."""
    seen = (signal("source_share.archive", 0.97, 1.77, 3.0), signal("unread_share", 0.0, 0.12, 3.5),
            signal("document_mass", 0.37, 0.33, -1.6), signal("grounding_ratio_retrieval", 0.183, 0.359, 3.0))  # fmt: skip
    told = triage(case(heads(), *seen, run=PASSED))
    assert (told.drift_class, told.cause, told.runner_up) == ("traffic", "topics", "retrieval")


def test_one_of_forty_figures_that_moves_by_chance_claims_nothing():
    """Three windows after the start of a change of topics, grounding is off by 1.8 standard deviations."""
    seen = signal("grounding_ratio", 0.13, 0.1, -1.8, since_ns=START + 3 * MINUTE)
    unsure = msgspec.structs.replace(seen, log10_evidence=0.7)
    assert triage(case(heads(), unsure, run=PASSED)).drift_class == "traffic"
    assert triage(case(heads(), seen, run=PASSED)).drift_class == "retrieval", "with evidence of its own it does"
    lasting = msgspec.structs.replace(unsure, since_ns=START)
    assert triage(case(heads(), lasting, run=PASSED)).drift_class == "retrieval", "and when it lasts"
    wandering = msgspec.structs.replace(lasting, standard_error=0.5)
    assert triage(case(heads(), wandering, run=PASSED)).drift_class == "traffic", "but not where it wanders so far by itself"


def test_a_change_that_is_real_and_too_small_to_matter_is_not_retrieval():
    told = triage(case(signal("grounding_ratio", 0.600, 0.595, -8.0), run=PASSED))
    assert (told.drift_class, told.cause) == ("traffic", "unexplained")
    assert not pages(told)
