"""Which baselines and fingerprints exporters are told of, and when."""

from __future__ import annotations

import msgspec

from headwatch.canary.state import FingerprintFacts
from headwatch.drift.kept import BaselineEntry
from headwatch.watch.references import References

BASELINE = BaselineEntry(3, "pinned", 1_000, 10, 1460, 1440, "before release 8", {}, in_force=True)
FACTS = FingerprintFacts("/f.json", 2_000, "smol", "r1", "bfloat16", "2", 5, exact=False, note="")


def test_a_baseline_is_told_at_the_start_and_when_another_comes_into_force():
    told = References()
    (none,) = told.baselines(0, None, 5)
    assert (none.version, none.origin, none.time_ns) == (0, "", 5)
    assert told.baselines(0, None, 6) == ()
    (found,) = told.baselines(1, BASELINE, 7)
    assert msgspec.structs.astuple(found) == (7, 3, "pinned", 1_000, 10, 1460, 1440, "before release 8")
    assert told.baselines(1, BASELINE, 8) == ()
    (again,) = told.baselines(2, BASELINE, 9)
    assert (again.version, again.time_ns) == (3, 9), "it was put in force once more"
    assert References().baselines(2, BASELINE, 10) != (), "another life tells again"


def test_a_fingerprint_is_told_when_it_is_pinned_and_when_another_is():
    told = References()
    assert told.fingerprints(None, 1) == ()
    (found,) = told.fingerprints(FACTS, 2)
    assert msgspec.structs.astuple(found) == (2, 2_000, "smol", "r1", "bfloat16", "2", 5, False, "")
    assert told.fingerprints(FACTS, 3) == ()
    (other,) = told.fingerprints(msgspec.structs.replace(FACTS, created_ns=9_000), 4)
    assert (other.time_ns, other.created_ns) == (4, 9_000)
