"""No process outlives the demo, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwatch.demo.processes import Server, free_ports, tail
from headwatch.demo.signals import Interrupted, interruptible
from headwatch.errors import CommandError

# A server with a child that moves to a session of its own and ignores SIGTERM: the worst that an engine may do.
STUBBORN = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, signal, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("child", os.getpid(), flush=True)
time.sleep(600)
'''])
print("server", os.getpid(), flush=True)
time.sleep(600)
"""
DEMO = """
import sys, time
from pathlib import Path
from headwatch.demo.processes import Server
command = [sys.executable, "-c", Path(sys.argv[1]).read_text()]
with Server("stubborn", command, Path(sys.argv[2]), {}, grace_seconds=0.5) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def pids_in(log: Path, names: set[str]) -> dict[str, int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = {line.split()[0]: int(line.split()[1]) for line in tail(log).splitlines()}
        if set(found) == names:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{names} did not all start: {tail(log)}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_stop_ends_the_whole_tree(tmp_path: Path):
    """When stop returns, server, children and grandchildren are gone, even those that ignore SIGTERM."""
    with Server("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log", {}, grace_seconds=0.5) as server:
        pids = pids_in(tmp_path / "log", {"server", "child"})
        assert all(alive(pid) for pid in [*pids.values(), server.pid])
    assert not any(alive(pid) for pid in [*pids.values(), server.pid])


def test_child_of_a_crashed_server_is_ended(tmp_path: Path):
    """An engine whose API server was killed does not stay behind."""
    with Server("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log", {}, grace_seconds=0.5):
        pids = pids_in(tmp_path / "log", {"server", "child"})
        os.kill(pids["server"], signal.SIGKILL)
        assert gone(list(pids.values()))


def test_kill_9_of_the_demo_leaves_nothing(tmp_path: Path):
    """The kernel tells the guard, which ends everything."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    demo = subprocess.Popen([sys.executable, "-c", DEMO, str(tmp_path / "stubborn.py"), str(tmp_path / "log")],
                            stdout=subprocess.PIPE)
    with demo:
        guard = int(demo.stdout.readline())
        pids = pids_in(tmp_path / "log", {"server", "child"})
        demo.kill()
        demo.wait()
    assert gone([guard, *pids.values()])


def test_ctrl_c_ends_the_servers_first(tmp_path: Path):
    """The first SIGINT leaves the block through its context managers."""
    pids: dict[str, int] = {}

    def run_until_interrupted() -> None:
        with interruptible(), Server("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log", {}, grace_seconds=0.5):
            pids.update(pids_in(tmp_path / "log", {"server", "child"}))
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(Interrupted) as caught:
        run_until_interrupted()
    assert caught.value.exit_code == 130
    assert not any(alive(pid) for pid in pids.values())


def test_second_signal_does_not_cut_the_ending_short():
    """While the first one unwinds, further ones are ignored; afterwards the old handlers are back."""
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    def run_until_interrupted() -> None:
        with interruptible():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                ended.append(True)

    with pytest.raises(Interrupted) as caught:
        run_until_interrupted()
    assert ended
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path):
    """The user sees why, and where to read more."""
    command = [sys.executable, "-c", "print('\\n'.join(f'line {n}' for n in range(50))); raise SystemExit(3)"]
    with Server("the server", command, tmp_path / "server.log", {}) as server, pytest.raises(CommandError) as caught:
        server.wait_until_healthy(f"http://127.0.0.1:{free_ports(1)[0]}/", 20)
    message = str(caught.value)
    assert "the server ended with exit code 3" in message
    assert str(tmp_path / "server.log") in message
    assert "line 49" in message
    assert "line 29" not in message


def test_silent_server_is_given_up(tmp_path: Path):
    """A server that never answers ends the wait with an error."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        Server("the server", command, tmp_path / "log", {}) as server,
        pytest.raises(CommandError, match="did not answer"),
    ):
        server.wait_until_healthy(f"http://127.0.0.1:{free_ports(1)[0]}/", 0.6)


def test_healthy_server_is_noticed(tmp_path: Path):
    """A real HTTP server is found as soon as it answers."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with Server("the server", command, tmp_path / "log", {}) as server:
        server.wait_until_healthy(f"http://127.0.0.1:{port}/", 20)
        server.check()
