"""What is asked: counted, learnt, and reported where it changed."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import msgspec
import pytest

from headwatch.drift.traffic import traffic_evidence
from headwatch.drift.traffic_baseline import KINDS, MAX_NAMES, TrafficBaseline, traffic_of
from headwatch.findings import Case
from headwatch.incident.severity import pages
from headwatch.incident.triage import triage
from headwatch.model import Document
from headwatch.observed import ObservedWindow
from headwatch.records import RequestRecord

from ..incident.cases import event
from ..signals.requests import record

SECOND = 1_000_000_000
NAMED = [kind for kind in KINDS if kind != "band"]
"""Kinds whose names clients or operators choose."""
NEWER = ["model", "adapter", "template_version"]
"""Kinds that windows of earlier versions do not count."""


def window(number: int, records: list[object], *, seconds: int = 60) -> ObservedWindow:
    start = number * 60 * SECOND
    return ObservedWindow(number, start, start + seconds * SECOND, traffic=traffic_of(records))  # type: ignore[arg-type]


def mixed(support: int, handbook: int, **more: object) -> list[object]:
    return [
        *(record(name=f"s-{number}", digest="aaaa1111", **more) for number in range(support)),  # type: ignore[arg-type]
        *(record(name=f"h-{number}", route="handbook", digest="bbbb2222", **more) for number in range(handbook)),  # type: ignore[arg-type]
    ]


def named(kind: str, name: str, requests: int) -> list[RequestRecord]:
    """Return *requests* that have *name* as what *kind* counts."""
    field = {"template_version": "template"}.get(kind, kind)
    return [record(name=f"{name}-{number}", **{field: name}) for number in range(requests)]  # type: ignore[arg-type]


def usual() -> TrafficBaseline:
    """Ten windows of 60 % support with a little variation."""
    return TrafficBaseline.learn(window(number, mixed(12 + number % 3, 8)) for number in range(10))


def test_requests_count_as_often_as_they_stand_for() -> None:
    made = traffic_of([record(weight=4.0, language="de", digest="aaaa1111", prompt_tokens=1500), record(name="r-2")])
    assert made["requests"] == 5.0
    assert made["prompt_tokens"] == 4 * 1500 + 30
    assert (made["route:support"], made["language:de"], made["band:1k-2k"]) == (5.0, 4.0, 4.0)
    assert made["template:support:aaaa1111"] == 4.0
    assert not any(name.startswith("language:") and name != "language:de" for name in made), "unnamed is no language"


@pytest.mark.parametrize("kind", NAMED)
def test_names_are_bounded_and_the_rest_is_one(kind: str) -> None:
    made = traffic_of([named(kind, f"name-{number}", 1)[0] for number in range(MAX_NAMES + 6)])
    assert sum(name.startswith(f"{kind}:") for name in made) == MAX_NAMES + 1
    assert made[f"{kind}:other"] == 6.0


@pytest.mark.parametrize("kind", NAMED)
def test_a_baseline_keeps_so_many_names_and_no_more(kind: str) -> None:
    """Other names in every window, as of clients that put a number into one."""
    learnt = TrafficBaseline()
    for number in range(2 * len(KINDS)):
        seen = [one for place in range(MAX_NAMES) for one in named(kind, f"{number}-{place}", 1)]
        learnt = learnt.merge(TrafficBaseline.learn([window(number, seen)]))
    assert len(learnt.shares) == MAX_NAMES * len(KINDS)


def test_models_adapters_and_versions_of_templates_are_counted_where_they_are_named() -> None:
    made = traffic_of([record(model="7b", adapter="de", template="4", weight=3.0), record(model="1b", digest="aaaa1111")])
    counts = {name: count for name, count in made.items() if name.partition(":")[0] in NEWER}
    assert counts == {"model:7b": 3.0, "model:1b": 1.0, "adapter:de": 3.0, "template_version:4": 3.0}
    assert made["template:support:aaaa1111"] == 1.0


@pytest.mark.parametrize("kind", NEWER)
def test_a_shift_from_one_to_another_is_reported_with_its_shares(kind: str) -> None:
    baseline = TrafficBaseline.learn(window(number, [*named(kind, "a", 17), *named(kind, "b", 3)]) for number in range(10))
    found = traffic_evidence([window(20, [*named(kind, "a", 4), *named(kind, "b", 12), *named(kind, "c", 4)])], baseline)
    (moved,) = [item for item in found if item.name.startswith(f"{kind}:")]
    assert (moved.kind, moved.name) == ("traffic", f"{kind}:a")
    assert (moved.before, moved.after) == (pytest.approx(0.85), pytest.approx(0.2))
    verdict = triage(Case(event=event(moved)))
    assert (verdict.drift_class, pages(verdict)) == ("traffic", False)
    assert re.search(r"\ba\b.*85%.*20%", verdict.sentence)
    assert traffic_evidence([window(20, [*named(kind, "a", 17), *named(kind, "b", 3)])], baseline) == ()


@pytest.mark.parametrize("kind", ["adapter", "template_version"])
def test_one_that_is_dropped_for_none_is_reported_too(kind: str) -> None:
    baseline = TrafficBaseline.learn(window(number, named(kind, "a", 20)) for number in range(10))
    found = traffic_evidence([window(20, mixed(20, 0))], baseline)
    assert [(item.name, item.after) for item in found if item.name.startswith(f"{kind}:")] == [(f"{kind}:a", 0.0)]


def as_before(seen: ObservedWindow) -> ObservedWindow:
    """Return *seen* as earlier versions kept it."""
    return replace(seen, traffic={name: count for name, count in seen.traffic.items() if name.partition(":")[0] not in NEWER})


def test_windows_that_count_no_models_are_no_change_on_either_side() -> None:
    one = [record(name=f"r-{number}", adapter="de", template="4") for number in range(20)]
    old, new = [as_before(window(number, one)) for number in range(10)], [window(number, one) for number in range(10)]
    for learnt, seen in ((old, new), (new, old), (old, old), (old[:6] + new[6:], new)):
        assert traffic_evidence(seen[-3:], TrafficBaseline.learn(learnt)) == ()


def test_shares_are_of_the_windows_that_count_them() -> None:
    """Half a baseline of earlier windows must not halve what the others say, nor hide a change."""
    usual, other = named("model", "7b", 20), named("model", "1b", 20)
    learnt = [as_before(window(number, usual)) for number in range(6)] + [window(number, usual) for number in range(6, 12)]
    baseline = TrafficBaseline.learn(learnt)
    assert traffic_evidence([as_before(window(20, usual)), window(21, usual)], baseline) == ()
    found = traffic_evidence([as_before(window(20, usual)), window(21, other)], baseline)
    assert [(item.name, item.before, item.after) for item in found] == [("model:1b", 0.0, 1.0)]


def test_a_baseline_of_an_earlier_version_is_read_and_says_nothing_of_what_it_does_not_know() -> None:
    plain = msgspec.to_builtins(TrafficBaseline.learn(as_before(window(number, mixed(12, 8))) for number in range(10)))
    del plain["newer_windows"], plain["newer_requests"]
    kept = msgspec.convert(plain, TrafficBaseline)
    assert traffic_evidence([window(20, mixed(12, 8, adapter="de"))], kept) == ()


def test_windows_like_the_baseline_are_no_evidence() -> None:
    assert traffic_evidence([window(20 + number, mixed(13, 8)) for number in range(3)], usual()) == ()


def test_another_mix_of_routes_is_reported_with_its_shares() -> None:
    found = traffic_evidence([window(20 + number, mixed(4, 16)) for number in range(3)], usual(), "model")
    (route,) = [item for item in found if item.name.startswith("route:")]
    assert (route.kind, route.model) == ("traffic", "model")
    assert route.since_ns == 20 * 60 * SECOND
    assert route.after - route.before == pytest.approx(route.effect)
    assert abs(route.effect) == pytest.approx(0.42, abs=0.03)
    assert "mix of routes" in route.note


def test_a_handful_of_requests_is_no_evidence_of_a_mix() -> None:
    found = traffic_evidence([window(20, mixed(0, 2))], usual())
    assert not [item for item in found if item.name.startswith("route:")]


def test_longer_prompts_and_more_load_are_reported() -> None:
    found = traffic_evidence([window(20, mixed(60, 40, prompt_tokens=900))], usual())
    by_name = {item.name: item for item in found}
    assert by_name["length"].after == pytest.approx(900)
    assert by_name["load"].after == pytest.approx(100 / 60)
    assert any(name.startswith("band:") for name in by_name)


def test_prompts_that_cross_the_edge_of_a_band_have_no_other_length() -> None:
    baseline = TrafficBaseline.learn(window(number, mixed(12, 8, prompt_tokens=500)) for number in range(10))
    found = traffic_evidence([window(20 + number, mixed(12, 8, prompt_tokens=520)) for number in range(3)], baseline)
    assert not [item for item in found if item.name.startswith("band:")]


def test_a_usual_template_that_is_gone_is_evidence_for_its_route_alone() -> None:
    now = [record(name=f"r-{number}", digest="cccc3333") for number in range(6)]
    found = traffic_evidence([window(20, [*now, *mixed(0, 6)])], usual())
    (template,) = [item for item in found if item.name.startswith("template:")]
    assert (template.name, template.route, template.before, template.after) == ("template:support", "support", 1.0, 0.0)
    assert "aaaa1111" in template.note


def test_a_prompt_with_the_date_in_it_is_nobodys_usual_one() -> None:
    """A day of windows sees two dates; the second one goes away at midnight, as it does each day."""
    days = ["aaaa1111"] * 6 + ["bbbb2222"] * 10
    baseline = TrafficBaseline.learn(
        window(number, [record(name=f"r-{number}-{k}", digest=digest) for k in range(8)]) for number, digest in enumerate(days)
    )
    assert baseline.templates["support:bbbb2222"] / baseline.routes["support"] > 0.5
    after = [window(20, [record(name=f"n-{k}", digest="cccc3333") for k in range(8)])]
    assert not [item for item in traffic_evidence(after, baseline) if item.name.startswith("template:")]


def test_a_prompt_that_was_gone_before_the_baseline_ended_is_no_longer_the_usual_one() -> None:
    digests = ["aaaa1111"] * 140 + ["bbbb2222"] * 12
    baseline = TrafficBaseline.learn(window(number, [record(digest=digest)]) for number, digest in enumerate(digests))
    assert baseline.usual_template("support") is None
    early = TrafficBaseline.learn(window(number, [record(digest=digest)]) for number, digest in enumerate(digests[:145]))
    assert early.usual_template("support") == ("support:aaaa1111", pytest.approx(140 / 145))


def test_day_and_night_are_no_change_of_language_or_length() -> None:
    """What moves slowly does not average out over an hour, and what moves from window to window does."""
    def asked(number: int, share: float, tokens: int) -> ObservedWindow:
        german = round(20 * share)
        return window(number, [record(name=f"r-{number}-{k}", language="de" if k < german else "en", prompt_tokens=tokens)
                               for k in range(20)])  # fmt: skip

    night = 2 * math.pi / 288
    cycle = [(0.5 + 0.3 * math.sin(night * at), round(500 * 2 ** (0.3 * math.sin(night * at)))) for at in range(576)]
    slow = TrafficBaseline.learn(asked(at, *figures) for at, figures in enumerate(cycle))
    shuffled = random.Random(5).sample(cycle, len(cycle))
    quick = TrafficBaseline.learn(asked(at, *figures) for at, figures in enumerate(shuffled))
    evening = [asked(600 + at, 0.8, 615) for at in range(30)]
    assert not [item.name for item in traffic_evidence(evening, slow) if item.name != "load"]
    assert {"language:de", "length", "asked_length"} <= {item.name for item in traffic_evidence(evening, quick)}


def test_longer_documents_make_longer_prompts_and_no_longer_questions() -> None:
    def long(tokens: int) -> list[object]:
        return [record([Document("a")], (tokens,), name=f"r-{k}", prompt_tokens=tokens + 60) for k in range(8)]

    baseline = TrafficBaseline.learn(window(number, long(300 + number % 3)) for number in range(10))
    names = {item.name for item in traffic_evidence([window(20 + at, long(600)) for at in range(3)], baseline)}
    assert "length" in names
    assert "asked_length" not in names


def test_windows_of_earlier_versions_do_not_tell_what_was_asked_so_the_whole_prompt_speaks_for_it() -> None:
    def old(number: int, tokens: int) -> ObservedWindow:
        made = window(number, mixed(12, 8, prompt_tokens=tokens))
        made.traffic.pop("asked_log2")
        return made

    baseline = TrafficBaseline.learn(old(number, 500) for number in range(10))
    found = {item.name: item.after for item in traffic_evidence([old(20, 900)], baseline)}
    assert found["asked_length"] == pytest.approx(found["length"]) == pytest.approx(900)


def test_prompts_that_all_differ_have_no_usual_template() -> None:
    own = [[record(name=f"r-{number}", digest=f"{number:08x}") for number in range(20 * k, 20 * k + 20)] for k in range(11)]
    baseline = TrafficBaseline.learn(window(number, items) for number, items in enumerate(own[:10]))  # type: ignore[arg-type]
    assert not [
        item for item in traffic_evidence([window(20, own[10])], baseline) if item.name.startswith("template:")  # type: ignore[arg-type]
    ]


def test_without_a_baseline_or_requests_nothing_is_said() -> None:
    assert traffic_evidence([window(20, mixed(4, 16))], TrafficBaseline()) == ()
    assert traffic_evidence([window(20, [])], usual()) == ()


def test_baselines_add_up_and_survive_json() -> None:
    windows = [window(number, mixed(12 + number % 3, 8)) for number in range(10)]
    apart = TrafficBaseline.learn(windows[:4]).merge(TrafficBaseline.learn(windows[4:]))
    whole = usual()
    assert (apart.windows, apart.templates, apart.routes) == (whole.windows, whole.templates, whole.routes)
    assert apart.shares["route:support"].total == pytest.approx(whole.shares["route:support"].total)
    assert msgspec.json.decode(msgspec.json.encode(whole), type=TrafficBaseline) == whole
