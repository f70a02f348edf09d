"""The real programs that tests talk to.

``python tests/peers.py`` fetches those that are missing; tests ask :func:`peer` for them and fetch nothing.  Prometheus
comes as Debian's package, unpacked below ``.cache/peers`` and not installed; rotel comes with the test requirements.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "peers"
FETCHED = ("prometheus", "promtool")
PACKAGE = "prometheus"
COMMAND_SECONDS = 300


class PeerMissing(RuntimeError):  # noqa: N818 - it reads as what it says
    """A program that tests need is not on this machine.  The message says what to do."""


def peer(name: str) -> Path:
    """Return the program *name*: ``prometheus``, ``promtool`` or ``rotel``.

    Raises:
        PeerMissing: It is not on this machine.
    """
    found = _rotel() if name == "rotel" else _on_path(name) or _unpacked(name)
    if found is None:
        remedy = "pip install rotel" if name == "rotel" else f"make peers, or put {name} on PATH"
        raise PeerMissing(f"the tests need {name}, which is not on this machine; run: {remedy}")
    return found


def fetch() -> None:
    """Unpack Debian's Prometheus into :data:`CACHE`; nothing is installed.

    Raises:
        PeerMissing: This is no Debian or Ubuntu, or its archive cannot be reached.
    """
    if missing := [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]:
        raise PeerMissing(f"cannot fetch {PACKAGE}: there is no {missing[0]} here; put {' and '.join(FETCHED)} on PATH")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        try:
            _run(["apt-get", "download", PACKAGE], folder)
        except PeerMissing:  # the package lists are missing or old
            _run(["apt-get", "update"], folder)
            _run(["apt-get", "download", PACKAGE], folder)
        (archive,) = Path(folder).glob("*.deb")
        _run(["dpkg", "-x", str(archive), "unpacked"], folder)
        shutil.rmtree(CACHE / PACKAGE, ignore_errors=True)
        Path(folder, "unpacked").replace(CACHE / PACKAGE)


def main() -> int:
    """Fetch what is missing, print where each peer is, and return the exit status."""
    try:
        if any((_on_path(name) or _unpacked(name)) is None for name in FETCHED):
            fetch()
        for name in (*FETCHED, "rotel"):
            print(f"{name}\t{peer(name)}")  # noqa: T201 - what this program is for
    except PeerMissing as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _unpacked(name: str) -> Path | None:
    path = CACHE / PACKAGE / "usr" / "bin" / name
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _rotel() -> Path | None:
    package = importlib.util.find_spec("rotel")
    for folder in (package and package.submodule_search_locations) or ():
        if os.access(agent := Path(folder, "rotel-agent"), os.X_OK):
            return agent
    return None


def _run(command: list[str], folder: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = next((line for line in lines if line.startswith("E:")), lines[-1] if lines else "no reason given")
        raise PeerMissing(
            f"cannot fetch {PACKAGE}: {' '.join(command)}: {reason}; put {' and '.join(FETCHED)} on PATH"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
