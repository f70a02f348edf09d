"""``headwatch dashboards``: what it prints and how it exits."""

from __future__ import annotations

import argparse
import json
import time

import pytest

from headwatch.cli import dashboards as command
from headwatch.errors import CommandError, StoreError
from headwatch_dashboards.boards import BOARDS

from .dashboard_rows import filled_store

pytestmark = pytest.mark.store


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_build_then_check_is_in_order(tmp_path, capsys):
    """What is written passes; each written path is printed."""
    assert run("build", "--out", tmp_path) == 0
    written = capsys.readouterr().out
    assert all(f"{board.slug}.json" in written for board in BOARDS)
    assert run("check", "--out", tmp_path) == 0
    assert capsys.readouterr().out == "dashboards: in order\n"


def test_check_names_a_changed_file(tmp_path, capsys):
    """A file that is not what the code generates is named on stderr, and the exit code is 1."""
    run("build", "--out", tmp_path)
    capsys.readouterr()
    rule = tmp_path / "grafana" / "alerting" / "headwatch.yaml"
    rule.write_text(rule.read_text() + "# mine\n")
    assert run("check", "--out", tmp_path) == 1
    assert str(rule) in capsys.readouterr().err


def test_check_without_files_says_how_to_get_them(tmp_path):
    """A folder without a dashboard is one clear error."""
    with pytest.raises(CommandError, match="headwatch dashboards build"):
        run("check", "--out", tmp_path / "nowhere")


def test_check_on_a_store(tmp_path, capsys):
    """`check --store` prints one JSON document, and exits with 1 where a panel has no rows."""
    store = filled_store(tmp_path / "store", int(time.time()))
    run("build", "--out", tmp_path / "grafana")
    capsys.readouterr()

    arguments = ("check", "--out", tmp_path / "grafana", "--store", store, "--json")
    assert run(*arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["problems"] == []
    assert all(query["rows"] > 0 for query in document["queries"])

    assert run(*arguments, "--hours", "0.0001") == 1
    document = json.loads(capsys.readouterr().out)
    assert any("returned no rows" in problem for problem in document["problems"])


def test_a_store_that_is_not_there_is_one_line(tmp_path, capsys):
    """A server that does not answer is one clear error without a traceback or a password."""
    run("build", "--out", tmp_path)
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        run("check", "--out", tmp_path, "--store", "http://me:secret@127.0.0.1:9/db")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_path_without_a_store_is_one_line_and_stays_empty(tmp_path):
    """A mistyped path is an error, not a new and empty store."""
    run("build", "--out", tmp_path)
    with pytest.raises(StoreError, match="no store there"):
        run("check", "--out", tmp_path, "--store", f"chdb://{tmp_path}/mistyped")
    assert not (tmp_path / "mistyped").exists()
