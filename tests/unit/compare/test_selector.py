"""How a side is written: place, what of it, and which part."""

from __future__ import annotations

import re

import pytest

from headwatch.compare.selector import Selector, parse_selector
from headwatch.errors import ConfigError
from headwatch.records import Selection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.history", ("a.history", {}, None)),
        ("a.history@3..9", ("a.history", {}, "3..9")),
        ("user@host/a.history@1..2", ("user@host/a.history", {}, "1..2")),
        ("live[revision=abc]@2026-11-01..2026-11-08", ("live", {"revision": "abc"}, "2026-11-01..2026-11-08")),
        ("live[model=org/x@1, adapter=y=z]", ("live", {"model": "org/x@1", "adapter": "y=z"}, None)),
        ("requests[adapter=]@..", ("requests", {"adapter": ""}, "..")),
        ("arm:new", ("arm:new", {}, None)),
        ("live@before:index 7 of a@b", ("live", {}, "before:index 7 of a@b")),
        ("runs[1].history@0..", ("runs[1].history", {}, "0..")),
        ("a@", ("a", {}, "")),
    ],
)
def test_sides(text, expected):
    place, chosen, part = expected
    assert parse_selector(text) == Selector(text, place, Selection(**chosen), part)


def test_a_file_of_that_very_name_goes_first(tmp_path):
    kept = tmp_path / "a[revision=r1]@1..2"
    kept.touch()
    assert parse_selector(str(kept)) == Selector(str(kept), str(kept))


@pytest.mark.parametrize("text", ["live[]", "live[revision]", "live[revison=a]", "live[model=a,model=b]", "live[arm=a]"])
def test_brackets_that_choose_nothing_known_are_refused(text):
    with pytest.raises(ConfigError, match=re.escape(repr(text)) + ".*model=….*revision=….*adapter=…"):
        parse_selector(text)
