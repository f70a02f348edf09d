"""The command: one document or one table, and an exit code that a build can trust."""

from __future__ import annotations

import json

import pytest

from headwatch.cli.main import main
from headwatch.history.file import History
from headwatch.incident.calendar import Calendar
from headwatch.incident.ledger import FILE_NAME, Ledger

from .scenes import MINUTE_NS, Scene, windows_of

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
        (["{healthy}", "{same}[model=x]"], "holds a stratum of model 'x'"),
        (["{healthy}[adapter=]", "{same}"], "name the adapter of both sides or of none"),
        (["{healthy}", "{same}@before:v2"], "a file knows no releases"),
        (["arm:a@3..9", "arm:b"], "requests have no window numbers"),
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


def live(tmp_path, windows, *releases):
    """Return a configuration whose sidecar has kept *windows*, and marked *releases* as (title, minute)."""
    folder = tmp_path / "kept"
    folder.mkdir()
    with History(folder / "history.db") as history:
        for window in windows:
            history.append(window)
    ledger = Ledger(folder / FILE_NAME)
    for title, minute in releases:
        Calendar(ledger, lambda: 0).add_deploy(title, time_ns=int(minute * MINUTE_NS))
    ledger.close()
    config = tmp_path / "headwatch.toml"
    config.write_text(f'[drift]\nfolder = "{folder}"\n')
    return ["--config", str(config), *QUICK]


def test_a_canary_release_beside_the_old_one_is_told_from_it(tmp_path, capsys):
    """Both are served by one sidecar at the same time; what is of both together is left out, and said."""
    windows = windows_of(Scene(seed=1, canary_failed=False))
    for window, other in zip(windows, windows_of(Scene(seed=2, revision="r2", shift=2.0)), strict=True):
        window.strata.update(other.strata)
    config = live(tmp_path, windows)
    assert main(["compare", "live[revision=r1]", "live[revision=r2]", *config]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("DIFFERENT  model (unexplained)")
    assert "A  live[revision=r1]: 30 windows" in shown
    assert "note: live[revision=r2]: in 30 of 30 windows the sidecar saw other models, revisions or adapters as well" in shown
    assert "signals of retrieval too in 30" in shown
    assert "signals of retrieval:" not in shown
    assert main(["compare", "live[revision=r1]@0..14", "live[revision=r1]@15..", *config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"]["shared_windows"] == 15


def test_before_and_after_a_release(tmp_path, capsys):
    windows = [*windows_of(Scene(seed=1, windows=40)), *windows_of(Scene(seed=2, windows=40, first=40, shift=2.0))]
    config = live(tmp_path, windows, ("index 7", 2), ("retriever 8", 40))
    assert main(["compare", "live@before:Retriever 8", "live@after:retriever", *config]) == 1
    shown = capsys.readouterr().out
    assert "A  live@before:Retriever 8: 38 windows" in shown, "the release before it bounds the range"
    assert "B  live@after:retriever: 40 windows" in shown
    assert main(["compare", "live@before:retriever", "live@after:retriever", *config, "--around", "20m"]) == 1
    assert "20 windows" in capsys.readouterr().out
    assert main(["compare", "live@before:gateway", "live", *config]) == 2
    assert "no release matches 'gateway'; the latest: 'index 7' of 1970-01-01 00:02, 'retriever 8'" in capsys.readouterr().err


def test_without_a_calendar_no_release_is_found(tmp_path, capsys):
    config = live(tmp_path, windows_of(Scene()))
    (tmp_path / "kept" / FILE_NAME).unlink()
    assert main(["compare", "live@before:x", "live", *config]) == 2
    assert "none is marked (headwatch deploy-event)" in capsys.readouterr().err


def test_two_halves_of_one_file(files, capsys):
    assert main(["compare", f"{files['healthy']}@0..14", f"{files['healthy']}@15..", *QUICK]) == 0
    assert "15 windows" in capsys.readouterr().out
