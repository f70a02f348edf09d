"""``headwatch baseline`` and ``headwatch drift`` on the files of a sidecar that does not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwatch.cli.main import main
from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.history.file import History

from .drift.windows import CHAT, CONFIG, Deployment

WINDOWS = 180
DRIFT = Deployment(signal_shift={"grounding_ratio": -6.0}, begins=150)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The drift folder of a sidecar that has seen a drift."""
    folder = tmp_path_factory.mktemp("kept")
    keeper, history = Keeper(folder / "drift.db"), History(folder / "history.db")
    engine = DriftEngine(CONFIG, 60.0, keeper, history)
    for index in range(WINDOWS):
        engine.step(DRIFT.window(index))
        engine.save()
    keeper.close()
    history.close()
    return folder


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    """A copy, with a configuration that names it."""
    for name in ("drift.db", "history.db"):
        (tmp_path / name).write_bytes((kept / name).read_bytes())
    changed = ("interval_windows", "min_baseline_windows", "max_baseline_windows", "learning_lag_windows", "resolve_windows")
    lines = [f"{name} = {getattr(CONFIG, name)}" for name in changed]
    (tmp_path / "headwatch.toml").write_text("\n".join(["[drift]", f'folder = "{tmp_path}"', *lines]))
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run a command with --json and return what it printed; or with *text*, as a person sees it."""
    def run(*words, text: bool = False, code: int = 0):
        command = [*map(str, words), "--config", str(folder / "headwatch.toml"), *([] if text else ["--json"])]
        assert main(command) == code
        printed = capsys.readouterr()
        if code:
            assert printed.out == ""
            return printed.err
        return printed.out if text else json.loads(printed.out)

    return run


def in_force(run) -> int:
    [one] = [entry["version"] for entry in run("baseline", "list")["baselines"] if entry["in_force"]]
    return one


def test_versions_are_listed_and_shown(run) -> None:
    entries = run("baseline", "list")["baselines"]
    assert [(entry["version"], entry["origin"], entry["in_force"]) for entry in entries] == [
        (1, "learned", False), (2, "learned", True),
    ]  # fmt: skip
    shown = run("baseline", "show")
    assert shown["version"] == 2
    assert sum(part["weight"] for part in shown["parts"]) == pytest.approx(0.8), "the rest is for newcomers"
    assert {part["kind"] for part in shown["parts"]} == {"heads", "signal"}
    assert CHAT.label in run("baseline", "show", 1, text=True)
    assert "in force" in run("baseline", "list", text=True)


def test_promote_and_rollback(run) -> None:
    assert run("baseline", "promote", 1)["in_force"]
    assert in_force(run) == 1
    assert run("baseline", "rollback")["version"] == 2
    assert in_force(run) == 2


def test_learn_from_a_range_and_compare(run) -> None:
    """Windows around a page teach only where a person says so."""
    range_ = ("--from", DRIFT.first + 150, "--last", 30)
    assert "too few windows" in run("baseline", "learn", *range_, code=1)
    learned = run("baseline", "learn", *range_, "--all", "--note", "what is wrong now")
    assert (learned["version"], learned["windows"], learned["in_force"]) == (3, 30, False)
    found = run("baseline", "diff", 1, 3)
    largest = found["differences"][0]
    assert (largest["name"], largest["kind"]) == ("grounding_ratio", "signal")
    assert largest["largest"] == pytest.approx(-6.0, abs=2.0)
    assert run("baseline", "diff", 1, 1)["rms"] == 0.0
    assert "grounding_ratio" in run("baseline", "diff", 1, 3, "--limit", 1, text=True)


def test_a_baseline_travels_as_a_file(run, folder, tmp_path) -> None:
    file = tmp_path / "normal.baseline"
    exported = run("baseline", "export", 2, file)
    assert exported["file"] == str(file)
    imported = run("baseline", "import", file, "--note", "from staging")
    assert (imported["version"], imported["origin"], imported["note"]) == (3, "imported", "from staging")
    assert not imported["in_force"]
    assert imported["parts"] == exported["parts"]
    assert run("baseline", "diff", 2, 3)["rms"] == 0.0
    pinned = run("baseline", "pin", file)
    assert (pinned["origin"], pinned["in_force"]) == ("pinned", True)


def test_a_version_or_a_history_is_pinned(run, tmp_path) -> None:
    assert run("baseline", "pin", 1, "--note", "before the release")["origin"] == "pinned"
    assert in_force(run) == 1
    recording = tmp_path / "healthy.history"
    assert run("drift", "export", recording, "--to", DRIFT.first + 149, "--last", 80)["windows"] == 80
    pinned = run("baseline", "pin", recording)
    assert (pinned["origin"], pinned["windows"], pinned["note"]) == ("pinned", 80, "from healthy.history")
    assert pinned["in_force"]


def test_a_recording_says_where_it_comes_from(run, tmp_path) -> None:
    recording = tmp_path / "part.history"
    run("drift", "export", recording, "--from", "2023-03-28T12:00", "--note", "a morning")
    with History.open_readonly(recording) as history:
        assert history.meta()["note"] == "a morning"
        assert history.meta()["window"] == {"seconds": 60.0, "requests": 0}


def test_status_needs_no_sidecar(run) -> None:
    told = run("drift", "status")
    assert told["baseline"] == 2
    assert told["status"]["state"] == "watching"
    assert told["window"] == told["history"]["last"] == DRIFT.first + WINDOWS - 1
    assert told["history"]["windows"] == WINDOWS
    text = run("drift", "status", text=True)
    assert "State: watching." in text
    assert "grounding_ratio" in text


def test_backtest_says_what_would_have_paged(run) -> None:
    told = run("drift", "backtest")
    assert told["first"] == run("baseline", "list")["baselines"][1]["last_window"] + 1
    assert told["judged"] == told["windows"] == told["last"] - told["first"] + 1
    [incident] = told["incidents"]
    assert 150 <= incident["window"] - DRIFT.first <= 153
    assert incident["incident"]["event"]["evidence"][0]["name"] == "grounding_ratio"
    assert (incident["class"], incident["cause"]) == ("retrieval", "wrong_documents")
    assert (incident["would_page"], incident["why_not"]) == (True, "")
    [page] = incident["pages"]
    assert (page["window"], page["confidence"]) == (incident["window"], incident["confidence"])
    assert told["pages"] == 1
    assert told["clock_reached"] > 1, "the change goes on, and belongs to the incident"
    assert told["false_pages_expected_at_most"] == pytest.approx(told["judged"] / 2000)
    healthy = run("drift", "backtest", "--baseline", 1, "--from", DRIFT.first + 60, "--to", DRIFT.first + 149)
    assert (healthy["windows"], healthy["incidents"], healthy["pages"]) == (90, [], 0)
    text = run("drift", "backtest", text=True)
    assert "incidents 1, pages 1." in text
    assert "retrieval/wrong_documents" in text


def test_backtest_can_begin_as_a_new_deployment(run, folder) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".db"}
    told = run("drift", "backtest", "--baseline", "none")
    assert told["warming_up"] == CONFIG.min_baseline_windows - 1
    assert told["pages"] == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".db"} == before, "it keeps nothing"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("baseline", "promote", "77"), "no baseline 77"),
        (("baseline", "learn", "--last", "5", "--all"), "too few windows"),
        (("baseline", "learn", "--from", "yesterday"), "give a window's number, or a time"),
        (("baseline", "pin", "nowhere.file"), "no such file"),
        (("baseline", "pin", __file__), "cannot be opened as history"),
        (("drift", "backtest", "--from", "1", "--to", "2"), "no such window"),
        (("drift", "backtest", "--baseline", "nowhere.file"), "cannot be read"),
    ],
)
def test_an_error_is_one_clear_line(run, words, said) -> None:
    error = run(*words, code=1)
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_file_that_is_no_baseline_is_refused(run, tmp_path) -> None:
    for content, said in ((b"something else", "no baseline of headwatch"), (b"headwatch baseline\n\x01cut", "cannot be read"),
                          (b"headwatch baseline\n\x09", "another version")):  # fmt: skip
        file = tmp_path / "odd.baseline"
        file.write_bytes(content)
        assert said in run("baseline", "import", file, code=1)


def test_where_nothing_was_kept_it_says_so(tmp_path, capsys) -> None:
    (tmp_path / "headwatch.toml").write_text(f'[drift]\nfolder = "{tmp_path / "none"}"\n')
    assert main(["drift", "status", "--config", str(tmp_path / "headwatch.toml")]) == 1
    assert "drift detection has kept nothing yet" in capsys.readouterr().err
