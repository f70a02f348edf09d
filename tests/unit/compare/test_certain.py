"""What is held against each other by rules: telemetry, canaries, templates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headwatch.compare.certain import canary_differences, telemetry_differences, template_differences
from headwatch.compare.side import CanaryTally

from .scenes import Scene, side

ONE = side(Scene(windows=6))


def tally(**change):
    return CanaryTally(**{"prompt": "short", "runs": 5, "failed": 0, "deviation": 1e-6, "threshold": 1e-3, "hint": "",
                          "earliest_layer": None, "last_failed": False, **change})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "after", "differs"),
    [
        ("capture_up", 1.0, 0.5, True),
        ("capture_up", 1.0, 0.9, False),
        ("frames_missing_share", 0.0, 0.2, True),
        ("frames_missing_share", 0.0, 0.005, False),
        ("refused_layers", 0.0, 3.0, True),
        ("clock_skew_seconds", 0.01, -300.0, True),
        ("sample_rate", 1.0, 0.33, True),
        ("sample_rate", 0.10, 0.11, False),
        ("detail", 1.0, 2.0, True),
        ("workers", 4.0, 1.0, False),
    ],
)
def test_telemetry(name, before, after, differs):
    found = telemetry_differences(replace(ONE, telemetry={name: before}), replace(ONE, telemetry={name: after}))
    assert [one.name for one in found] == ([name] if differs else [])


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ({}, {}, False),
        ({}, {"failed": 5, "deviation": 0.2}, True),
        ({"failed": 5, "deviation": 0.2}, {}, True),
        ({"failed": 5, "deviation": 0.2}, {"failed": 5, "deviation": 0.2}, False),
        ({"failed": 5, "deviation": 0.2}, {"failed": 5, "deviation": 0.5}, True),
        ({}, {"failed": 1, "deviation": 0.002}, False),
        ({}, {"failed": 1, "deviation": 0.2, "last_failed": True}, True),
    ],
)
def test_canaries(first, second, differs):
    found = canary_differences(replace(ONE, canaries=(tally(**first),)), replace(ONE, canaries=(tally(**second),)))
    assert [one.differs for one in found] == [differs]


def test_prompts_of_one_side_alone_are_not_compared():
    assert canary_differences(replace(ONE, canaries=(tally(),)), replace(ONE, canaries=(tally(prompt="long"),))) == []


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ({"aa": 1.0}, {"bb": 1.0}, True),
        ({"aa": 1.0}, {"aa": 0.5, "bb": 0.5}, False),
        ({"aa": 0.4, "bb": 0.3, "cc": 0.3}, {"dd": 1.0}, False),
        ({"aa": 1.0}, {"aa": 1.0}, False),
    ],
)
def test_templates(before, after, gone):
    found = template_differences(side(Scene(windows=6, templates=before)), side(Scene(windows=6, templates=after)))
    assert {one.name for one in found} == ({"template:support:aa", "template:search:aa"} if gone else set())
