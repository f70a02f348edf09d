"""A purge: planted identifiers are found everywhere before it and nowhere after it, in files as they lie on the disk."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from headwatch.cli.main import main
from headwatch.errors import HeadwatchError
from headwatch.pipeline import Sidecar
from headwatch.purge.run import purge
from headwatch_exporters.clickhouse.connection import connect

from .disk_search import files_with
from .planted import OTHERS, PLANTED, THEIRS, config, fill, places, state_of, words

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.identifiers import Identifier

pytestmark = pytest.mark.store

@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("kind", list(PLANTED))
def test_what_was_planted_is_found_before_and_nowhere_after(tmp_path: Path, kind: Identifier, hashed: bool) -> None:
    settings = config(tmp_path, hashed=hashed)
    fill(settings)
    wanted = words(settings, kind)
    before = set().union(*(places(settings, word) for word in wanted))
    assert {"store", "spool", "requests.jsonl"} <= before, "the search finds what is there"
    if kind == "document":
        assert "store.drift" in before
    if hashed:
        assert not places(settings, PLANTED[kind]), "it never was there as it is"
    report = purge(settings, kind, PLANTED[kind], who="ada")
    assert report.left == 0
    assert report.removed["headwatch_documents"] >= 1
    for word in wanted:
        assert files_with(state_of(settings), word) == []
    assert places(settings, OTHERS) >= {"store"}, "others are still there"
    with closing(connect(settings.store)) as connection:
        (audit,) = connection.query("SELECT who, action, what, removed FROM headwatch_audit")
        assert (audit["who"], audit["action"], audit["what"]) == ("ada", "purge", kind)
        assert audit["removed"] == report.removed
        (told,) = connection.query("SELECT state, length(documents.id) AS documents FROM headwatch_incidents FINAL")
        assert told == {"state": "open", "documents": 2 if kind == "user" else 1}, "theirs, or labelled with the tenant"
        expected = 2 if kind == "document" else 1
        assert connection.query("SELECT uniqExact(engine_id) AS n FROM headwatch_requests")[0]["n"] == expected
    assert purge(settings, kind, PLANTED[kind]).removed == {}


def test_everything_before_a_moment_goes(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    report = purge(settings, None, before_ns=2_000_000_000 * 10**9)  # the incident was opened in 2027
    assert report.left == 0
    for word in (THEIRS, OTHERS, "kb-2"):
        found = [path for path in files_with(state_of(settings), word) if not path.startswith("store.drift")]
        assert [path for path in found if "/202701_" not in path] == [], "but for the incident, which is open"
    with closing(connect(settings.store)) as connection:
        for table in ("otel_metrics_exp_histogram", "headwatch_requests", "headwatch_heads_1m", "headwatch_heads_1d"):
            assert connection.query(f"SELECT count() AS n FROM {table}")[0]["n"] == 0, table


def test_a_running_sidecar_is_told_of_and_nothing_is_touched(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    sidecar = Sidecar(settings)
    try:
        with pytest.raises(HeadwatchError, match=r"in use|another"):
            purge(settings, "user", PLANTED["user"])
    finally:
        sidecar.start()
        sidecar.stop()
    assert places(settings, THEIRS)


def test_the_command_asks_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    monkeypatch.setenv("HEADWATCH_STORE_URL", settings.store.url)
    monkeypatch.setenv("HEADWATCH_SPOOL_FOLDER", settings.spool.folder)
    monkeypatch.setenv("HEADWATCH_REQUESTS_LOG_PATH", settings.requests.log_path)
    assert main(["store", "purge", "--user", PLANTED["user"]]) == 1
    assert "say --yes" in capsys.readouterr().err
    assert places(settings, THEIRS)
    assert main(["store", "purge", "--user", PLANTED["user"], "--yes", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["what"], report["left"]) == ("user", 0)
    assert not places(settings, THEIRS)
    assert main(["store", "purge", "--user", "", "--yes"]) != 0
    assert main(["store", "purge", "--before", "yesterday", "--yes"]) != 0
