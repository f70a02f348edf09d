"""The table of scenarios and the traffic they send."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest

from headwatch.bench.triage import alterations
from headwatch.bench.triage.asking import healthy
from headwatch.bench.triage.knowledge import BUNDLE, SOURCES, company, elsewhere, german, short_notes, words
from headwatch.bench.triage.record import DEVELOPMENT_RUNS, RUNS, requests_of, split_of
from headwatch.bench.triage.scenarios import SCENARIOS, chosen
from headwatch.demo.retrieval import content_words
from headwatch.errors import CommandError
from headwatch.findings import CLASSES

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def first(count: int, split: str = "development", seed: int = 0):
    return list(itertools.islice(healthy(np.random.default_rng(seed), split), count))


def altered(change, count: int = 12):
    random = np.random.default_rng(1)
    return [(asked, change(asked, random, "development")) for asked in first(count)]


def field_of(asked) -> dict:
    return json.loads(asked.body("m", NOW)["vllm_xargs"]["headwatch"])


def test_there_are_as_many_scenarios_as_the_bars_ask_for():
    counted = [scenario for scenario in SCENARIOS if not scenario.informative]
    assert len(counted) >= 18
    assert {scenario.expected for scenario in counted} == {*CLASSES, "innocent"} - {"traffic"}
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert RUNS >= 3
    assert [split_of(run) for run in range(1, RUNS + 1)].count("development") == DEVELOPMENT_RUNS


def test_a_scenario_that_is_not_known_is_named():
    assert [scenario.name for scenario in chosen(["injection", "restart"])] == ["injection", "restart"]
    with pytest.raises(CommandError, match="no scenario 'injektion'"):
        chosen(["injektion"])


def test_the_same_run_asks_the_same_and_another_run_does_not():
    def asked(name: str, run: int):
        scenario = chosen([name])[0]
        return [item.body("m", NOW) for item in itertools.islice(requests_of(scenario, run), 8)]

    assert asked("shuffled_documents", 1) == asked("shuffled_documents", 1)
    assert asked("shuffled_documents", 1) != asked("shuffled_documents", 2)


def test_splits_share_no_question():
    for bundle in company():
        assert len(set(bundle.questions.values())) == 3
    texts = [{bundle.questions[split] for bundle in company()} for split in ("baseline", "development", "report")]
    assert not texts[0] & texts[1]
    assert not texts[1] & texts[2]
    for name in ("injections", "pasted"):
        assert not set(words()[name]["development"]) & set(words()[name]["report"])


def test_a_bundle_holds_its_answer_first_and_documents_of_several_sources():
    for bundles in (company(), elsewhere(), short_notes(), german()):
        for bundle in bundles:
            assert bundle.documents[0].title == bundle.title
            assert len({item.id for item in bundle.documents}) == BUNDLE
        assert {bundle.route for bundle in bundles} == {"support", "handbook"}
    assert {item.source for bundle in company() for item in bundle.documents} == set(SOURCES)


def test_healthy_traffic_asks_every_bundle_once_before_any_twice():
    count = len(company())
    routes = Counter(bundle.route for bundle in company())
    seen = Counter(item.bundle.title for item in first(count * 3) if item.route == "support")
    assert max(seen.values()) - min(seen.values()) <= 1
    assert len(seen) == routes["support"]


def test_documents_stand_in_the_prompt_as_the_field_names_them():
    """The best one is named first and stands last, next to the question."""
    for asked in first(6):
        text = asked.body("m", NOW)["messages"][1]["content"]
        places = [text.index(document["text"]) for document in field_of(asked)["documents"]]
        assert places == sorted(places, reverse=True)
        assert text.endswith(asked.question)


def test_wrong_documents_are_of_another_question():
    for asked, changed in altered(alterations.wrong_documents):
        assert len(changed.documents) == len(asked.documents)
        assert not {item.id for item in changed.documents} & {asked.documents[0].id}
        title = changed.documents[0].passage.partition("\n")[0]
        assert not content_words(title) & content_words(asked.bundle.title)


def test_stale_documents_are_months_old_and_of_an_older_version():
    for asked, changed in altered(alterations.stale_documents):
        for before, after in zip(field_of(asked)["documents"], field_of(changed)["documents"], strict=True):
            assert after["id"] == before["id"]
            assert after["version"] != before["version"]
            age = NOW - datetime.fromisoformat(after["retrieved_at"])
            assert age.days > 100


def test_shuffled_documents_have_the_same_words_for_whoever_asks():
    pairs = altered(alterations.shuffled_documents, 60)
    texts: dict[str, set[str]] = {}
    for asked, changed in pairs:
        for before, after in zip(asked.documents, changed.documents, strict=True):
            assert sorted(before.passage.split()) == sorted(after.passage.split())
            assert before.passage != after.passage
            texts.setdefault(after.id, set()).add(after.passage)
    assert all(len(found) == 1 for found in texts.values())


def test_truncated_documents_are_the_beginning_of_each():
    for asked, changed in altered(alterations.truncated_documents):
        for before, after in zip(asked.documents, changed.documents, strict=True):
            assert " ".join(before.passage.split()).startswith(after.passage)
            assert len(after.passage) < 0.5 * len(before.passage)


def test_a_broken_source_breaks_its_own_documents_and_no_others():
    for asked, changed in altered(alterations.source_broken):
        for before, after in zip(asked.documents, changed.documents, strict=True):
            assert (after.passage == before.passage) == (before.source != alterations.BROKEN_SOURCE)
            assert len(after.passage.split()) == len(before.passage.split())


def test_an_injection_stands_in_one_of_the_right_documents():
    texts = words()["injections"]["development"]
    for asked, changed in altered(alterations.injected):
        differing = [(a, b) for a, b in zip(asked.documents, changed.documents, strict=True) if a != b]
        assert len(differing) == 1
        assert differing[0][1].passage.removeprefix(differing[0][0].passage).strip() in texts


def test_innocent_changes_leave_the_documents_alone():
    for change in (alterations.longer_questions, alterations.in_german):
        for asked, changed in altered(change):
            assert changed.documents == asked.documents
    assert all(field_of(changed)["language"] == "de" for _, changed in altered(alterations.in_german))


def test_a_rank_that_is_reversed_names_the_worst_first():
    for asked, changed in altered(alterations.rank_reversed):
        assert changed.documents == asked.documents[::-1]


def test_system_prompts_of_releases_differ_by_run():
    random, asked = np.random.default_rng(0), first(1)[0]
    prompts = {alterations.other_system_prompt(run)(asked, random, "report").system for run in (1, 2, 3)}
    assert len(prompts) == 3
    assert words()["system"]["usual"] not in prompts
