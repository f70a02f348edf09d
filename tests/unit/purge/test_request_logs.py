"""Logs of requests are purged where they really lie, whatever they are called, and lines that a kill cut short go with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from headwatch.config import Config, StoreConfig
from headwatch.purge.files import log_files, purge_request_logs
from headwatch.purge.run import purge
from headwatch.purge.wanted import Wanted

if TYPE_CHECKING:
    from pathlib import Path

ADA = Wanted("user", frozenset(["ada"]))
NOVEMBER = 1_793_491_200 * 10**9  # 2026-11-01


def line(user: str = "ada", time: str = "2026-11-15T00:00:00Z") -> str:
    return json.dumps({"time": time, "engine_id": f"e-{user}", "user": user, "tenant": None, "documents": []}) + "\n"


def test_a_log_behind_a_link_is_purged_where_the_link_leads(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    for name in ("log", "log.1", "log-20261130"):
        (volume / name).write_text(line() + line("bob"))
    path = tmp_path / "log"
    path.symlink_to(volume / "log")
    (tmp_path / "log.2").symlink_to(volume / "moved")  # the link itself was put aside
    (volume / "moved").write_text(line())
    config = Config()
    config = msgspec.structs.replace(
        config, store=StoreConfig(enabled=False), drift=msgspec.structs.replace(config.drift, folder=str(tmp_path / "drift")),
        requests=msgspec.structs.replace(config.requests, log_path=str(path)),
        privacy=msgspec.structs.replace(config.privacy, salts_file=str(tmp_path / "salts")),
    )  # fmt: skip
    report = purge(config, "user", "ada")
    assert (report.removed, report.left) == ({"log of requests": 4}, 0)
    assert path.is_symlink()
    for name in ("log", "log.1", "log-20261130"):
        assert (volume / name).read_text() == line("bob")
    assert (volume / "moved").read_text() == ""


def test_signs_of_a_pattern_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    path, other = tmp_path / "log[1].jsonl", tmp_path / "log1.jsonl.1"
    aside = tmp_path / "log[1].jsonl.1"
    for one in (path, aside, other):
        one.write_text(line())
    assert log_files(path) == [path, aside]
    assert purge_request_logs(path, ADA) == 2
    assert other.read_text() == line()


def test_a_torn_line_goes_with_what_is_from_before_a_moment(tmp_path: Path) -> None:
    """One that says when it was is as old as that; one that does not may be as old as the line before it."""
    path = tmp_path / "log"
    october, december = "2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z"
    late = line(time=december) + line(time=december)[:60] + "\n" + '{"ti\n'
    path.write_text(line(time=october) + line(time=october)[:60] + "\n" + '{"ti\n' + late)
    before = Wanted(None, before_ns=NOVEMBER)
    assert purge_request_logs(path, before) == 3
    assert path.read_text() == late
    assert purge_request_logs(path, before) == 0
    assert purge_request_logs(path, ADA) == 2
    assert path.read_text() == '{"ti\n', "a torn line that does not name them stays"
