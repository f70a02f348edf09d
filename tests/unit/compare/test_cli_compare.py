"""The command: one document or one table, and an exit code that a build can trust."""

from __future__ import annotations

import json

import pytest

from headwatch.cli.main import main
from headwatch.history.file import History

from .scenes import Scene, windows_of

QUICK = ["--permutations", "599"]


def recorded(path, **scene):
    with History(path) as history:
        for window in windows_of(Scene(canary_failed=False, **scene)):
            history.append(window)
    return str(path)


@pytest.fixture
def files(tmp_path):
    return {
        "healthy": recorded(tmp_path / "healthy.history", seed=1),
        "same": recorded(tmp_path / "same.history", seed=2),
        "topics": recorded(tmp_path / "topics.history", seed=3, shift=1.5),
        "short": recorded(tmp_path / "short.history", seed=4, windows=2),
    }


def test_equal_sides_exit_with_0(files, capsys):
    assert main(["compare", files["healthy"], files["same"], *QUICK]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("NO DIFFERENCE")
    assert not shown.err


def test_a_difference_exits_with_1_unless_its_class_is_allowed(files, capsys):
    assert main(["compare", files["healthy"], files["topics"], *QUICK]) == 1
    assert main(["compare", files["healthy"], files["topics"], *QUICK, "--allow", "traffic"]) == 0
    assert main(["compare", files["healthy"], files["topics"], *QUICK, "--allow", "retrieval,model"]) == 1
    assert "DIFFERENT  traffic (topics)" in capsys.readouterr().out


def test_json_is_one_document_with_every_head(files, capsys):
    assert main(["compare", files["healthy"], files["topics"], *QUICK, "--json", "--top", "3"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["different"] is True
    assert found["verdict"]["drift_class"] == "traffic"
    assert len(found["heads"]) == 3
    entropy = next(feature for feature in found["features"] if feature["feature"] == "entropy")
    assert [len(layer) for layer in entropy["effect"]] == [4, 4, 4]
    assert found["power"][0]["all_heads"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{healthy}", "{short}@0..0"], "too few to tell a difference"),
        (["{healthy}", "/nowhere"], "there is no history at /nowhere"),
        (["{healthy}", "{same}@900..999"], "there are no windows in it"),
        (["{healthy}", "{same}", "--allow", "weather"], "known classes are telemetry"),
        (["{healthy}", "{same}", "--alpha", "0.9"], "give a chance between"),
        (["{healthy}", "{same}", "--permutations", "50"], "give at least 500"),
        (["{healthy}", "{same}", "--model", "x"], "holds a stratum of model 'x'"),
        (["{healthy}"], "required: B"),
    ],
)
def test_what_cannot_be_compared_exits_with_2_and_one_line(files, capsys, arguments, said):
    assert main(["compare", *(argument.format(**files) for argument in arguments)]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


def test_the_live_history_of_a_configuration(tmp_path, capsys):
    folder = tmp_path / "kept"
    folder.mkdir()
    recorded(folder / "history.db", seed=7, windows=40)
    config = tmp_path / "headwatch.toml"
    config.write_text(f'[drift]\nfolder = "{folder}"\n')
    assert main(["compare", "live@0..19", "live@20..", "--config", str(config), *QUICK]) == 0
    assert "A  live@0..19: 20 windows" in capsys.readouterr().out


def test_two_halves_of_one_file(files, capsys):
    assert main(["compare", f"{files['healthy']}@0..14", f"{files['healthy']}@15..", *QUICK]) == 0
    assert "15 windows" in capsys.readouterr().out
