"""A kill at any instant, in the middle of a drift too: the same events as without it, each once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.findings import DriftEvent
from headwatch.history.file import History

from .windows import CONFIG, Deployment

WINDOWS = 170
DRIFT = Deployment(seed=5, heads_shift=1.0, signal_shift={"grounding_ratio": -2.0}, begins=140)
HERE = Path(__file__).parent
CHILD = """
import importlib.util, sys, time
from pathlib import Path
import msgspec
from headwatch.drift.engine import DriftEngine
from headwatch.drift.keeper import Keeper
from headwatch.history.file import History

spec = importlib.util.spec_from_file_location("windows", {windows!r})
windows = importlib.util.module_from_spec(spec)
sys.modules["windows"] = windows
spec.loader.exec_module(windows)
folder = Path({folder!r})
history = History(folder / "history.db")
engine = DriftEngine(windows.CONFIG, 60.0, Keeper(folder / "drift.db"), history)
deployment = windows.Deployment(seed=5, heads_shift=1.0, signal_shift={{"grounding_ratio": -2.0}}, begins=140)

def say(text):
    print(text, flush=True)
    if text == {until!r}:
        time.sleep(60)  # until it is killed

def take(window):
    step = engine.step(window)
    if step.event is not None:  # an incident is opened before the state is saved, once for each window
        target = folder / f"event-{{window.number}}.json"
        target.with_suffix(".tmp").write_bytes(msgspec.json.encode(step.event))
        target.with_suffix(".tmp").replace(target)
    say(f"stepped {{window.number - deployment.first}}")
    engine.save()
    say(f"saved {{window.number - deployment.first}}")

for window in list(engine.missed()):
    take(window)
begin = 0 if engine.window < 0 else engine.window + 1 - deployment.first
for index in range(begin, {last}):
    window = deployment.window(index)
    history.append(window)
    say(f"kept {{index}}")
    take(window)
"""


def run_until(folder: Path, said: str | None) -> None:
    """Run the child until it has *said* something and waits, then kill it; None: to its end."""
    script = CHILD.format(windows=str(HERE / "windows.py"), folder=str(folder), last=WINDOWS, until=said)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if line.strip() == said:
                os.kill(child.pid, signal.SIGKILL)
                break
    finally:
        child.stdout.close()
        code = child.wait()
    assert code == (0 if said is None else -signal.SIGKILL)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[int, DriftEvent]:
    """The events of a life without a kill, by the window's number."""
    folder = tmp_path_factory.mktemp("without")
    keeper, history = Keeper(folder / "drift.db"), History(folder / "history.db")
    engine = DriftEngine(CONFIG, 60.0, keeper, history)
    events = {}
    for index in range(WINDOWS):
        step = engine.step(DRIFT.window(index))
        engine.save()
        if step.event is not None:
            events[DRIFT.first + index] = step.event
    keeper.close()
    history.close()
    return events


def test_kills_in_the_middle_of_a_drift_change_no_event(tmp_path, expected) -> None:
    """Killed while learning, between keeping, stepping and saving a window, before and after the page."""
    first = min(expected) - DRIFT.first
    assert 140 <= first < WINDOWS - 5
    around = (f"kept {first}", f"stepped {first}", f"saved {first}", f"stepped {first + 2}")
    for said in ("kept 59", "stepped 59", "stepped 142", *around):
        run_until(tmp_path, said)
    run_until(tmp_path, None)
    found = {
        int(path.stem.removeprefix("event-")): msgspec.json.decode(path.read_bytes(), type=DriftEvent)
        for path in tmp_path.glob("event-*.json")
    }
    assert found == expected


def test_a_state_goes_on_to_the_last_bit(tmp_path) -> None:
    """An engine that is closed and opened after every window shows the same clock as one that runs through."""
    def clocks(folder: Path, *, reopen: bool) -> list[float]:
        folder.mkdir()
        seen = []
        keeper, history = Keeper(folder / "drift.db"), History(folder / "history.db")
        engine = DriftEngine(CONFIG, 60.0, keeper, history)
        for index in range(150):
            seen.append(engine.step(DRIFT.window(index)).status.clock)
            engine.save()
            if reopen and index % 7 == 0:
                engine = DriftEngine(CONFIG, 60.0, keeper, history)
        keeper.close()
        history.close()
        return seen

    through = clocks(tmp_path / "through", reopen=False)
    assert through == clocks(tmp_path / "reopened", reopen=True)
    assert through[-1] > 0
