"""The command line: one document, one line for an error, an exit code that tells which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwatch import __version__
from headwatch.cli import main as cli
from headwatch.cli.main import COMMANDS, main
from headwatch.cli.output import print_table, stdout_to_stderr


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        monkeypatch.delenv(name)


def test_every_command_has_help_that_names_it(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n    {name}" in shown
        assert main([name, "--help"]) == 0
        assert f"usage: headwatch {name}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sidecar", "doctor", "verify", "version"])
def test_every_command_takes_json(command: str, capsys: pytest.CaptureFixture[str]):
    main([command, "--help"])
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command; see headwatch --help"),
        (["confug"], "invalid choice: 'confug'"),
        (["config"], "required: {check,show}; see headwatch config --help"),
        (["config", "check", "--jsn"], "unrecognized arguments: --jsn"),
        (["doctor", "--url", "nonsense"], "argument --url: 'nonsense': give an address"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    code = main(arguments)
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.startswith("headwatch: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"headwatch {__version__}\n"
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["headwatch"], found["wire"]) == (__version__, {"writes": 3, "reads": [2, 3]})
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"headwatch {__version__}, vLLM ")


def test_config_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "headwatch.toml"
    path.write_text("[capture]\nsample_rate = 1.0\n")
    assert main(["config", "check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == "configuration: in order, 1 value is set\n"
    assert main(["config", "check", "--config", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "origins": {"capture.sample_rate": f"file {path}"}}


def test_config_check_looks_into_the_head_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    head_map = tmp_path / "map.json"
    head_map.write_text("{}")
    path = tmp_path / "headwatch.toml"
    path.write_text(f"[grounding]\nhead_map = '{head_map}'\n")
    assert main(["config", "check", "--config", str(path)]) == 2
    assert "no head map" in capsys.readouterr().err


def test_config_check_knows_which_families_and_features_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "headwatch.toml"
    right = ['shadow_families = ["lasting.8"]', "route_weights = { chat = 2.0 }", "feature_weights = { entropy = 0 }"]
    path.write_text("\n".join(["[drift]", *right]))
    assert main(["config", "check", "--config", str(path)]) == 0
    capsys.readouterr()
    path.write_text('[drift]\nshadow_families = ["lasting.9"]\n')
    assert main(["config", "check", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "drift.shadow_families: there is no family 'lasting.9'; known: heads.mean, " in error
    assert len(error.strip().splitlines()) == 1


def test_a_wrong_configuration_ends_every_command_that_needs_it_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "headwatch.toml"
    path.write_text("[wire]\nendpiont = 'x'\n")
    for command in (["config", "check"], ["config", "show", "--json"], ["sidecar"]):
        assert main([*command, "--config", str(path)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == f"headwatch: error: {path}: unknown key wire.endpiont; did you mean 'endpoint'?\n"


def test_config_show_names_value_and_origin_of_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADWATCH_STORE_URL", "http://me:hunter2@host:8123/db")
    monkeypatch.setenv("HEADWATCH_CAPTURE_LAYERS", "[0, 14]")
    assert main(["config", "show"]) == 0
    table = capsys.readouterr().out
    assert main(["config", "show", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document) == len(table.splitlines()) - 1 > 30
    assert document["capture.layers"] == {"value": [0, 14], "origin": "environment HEADWATCH_CAPTURE_LAYERS"}
    assert "http://me:***@host:8123/db" in table
    assert "hunter2" not in table + json.dumps(document)
    assert main(["config", "show", "--changed", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"store.url", "capture.layers"}


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch):
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["version"]) == 130


def test_stdout_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ZeroDivisionError), stdout_to_stderr():
        1 / 0  # noqa: B018
    os.write(1, b"here")
    assert capfd.readouterr().out == "here"


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]):
    print_table(("a", "b"), [("long", "x"), ("s", "yy")])
    assert capsys.readouterr().out == "a     b\nlong  x\ns     yy\n"


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from headwatch.cli.main import main; assert main(['--help']) == 0; "
        "heavy = {'torch', 'numpy', 'opentelemetry', 'zmq', 'vllm', 'starlette', 'rich'} & set(sys.modules); "
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 3.0
