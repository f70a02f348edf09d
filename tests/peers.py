"""The real programs that tests talk to.

``python tests/peers.py`` fetches those that are missing; tests ask :func:`peer` for them and fetch nothing.  Prometheus and its
Alertmanager come as Debian's packages, unpacked below ``.cache/peers``, not installed; rotel is among the test requirements.
The driver of ClickHouse for Node comes from npm where Node is there; tests that need it are skipped elsewhere.
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
PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager",
            "amtool": "prometheus-alertmanager"}  # fmt: skip
"""Program to the package of Debian that it is in."""
TEMPLATES = (b"/usr/share/prometheus/alertmanager", b"usr/share/prometheus//alertmanager")
"""Where Debian's Alertmanager looks for its templates, and where it is told to, as it is not installed: from its own folder.
Of equal length, so that nothing in the program moves."""
NODE_PACKAGE = "@clickhouse/client@1.23.1"
COMMAND_SECONDS = 300


class PeerMissing(RuntimeError):  # noqa: N818 - it reads as what it says
    """A program that tests need is not on this machine.  The message says what to do."""


def peer(name: str) -> Path:
    """Return the program *name*: ``prometheus``, ``promtool``, ``prometheus-alertmanager``, ``amtool`` or ``rotel``.

    Raises:
        PeerMissing: It is not on this machine.
    """
    found = _rotel() if name == "rotel" else _on_path(name) or _unpacked(name)
    if found is None:
        remedy = "pip install rotel" if name == "rotel" else f"make peers, or put {name} on PATH"
        raise PeerMissing(f"the tests need {name}, which is not on this machine; run: {remedy}")
    return found


def alertmanager() -> list[str]:
    """Return how the Alertmanager is started: the unpacked one from its own folder, see :data:`TEMPLATES`.

    Raises:
        PeerMissing: It is not on this machine.
    """
    program = peer("prometheus-alertmanager")
    return ["env", f"--chdir={program.parents[2]}", str(program)] if CACHE in program.parents else [str(program)]


def node_modules() -> Path | None:
    """Return the folder that Node finds :data:`NODE_PACKAGE` in; None where Node or the package is not on this machine."""
    folder = CACHE / "npm" / "node_modules"
    return folder if shutil.which("node") and (folder / NODE_PACKAGE.rpartition("@")[0]).is_dir() else None


def fetch_node_package() -> None:
    """Unpack :data:`NODE_PACKAGE` below :data:`CACHE`; nothing is run that it brings.

    Raises:
        PeerMissing: npm's registry cannot be reached.
    """
    folder = CACHE / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}")
    _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", NODE_PACKAGE], str(folder), NODE_PACKAGE)


def fetch(package: str) -> None:
    """Unpack *package* of Debian into :data:`CACHE`; nothing is installed.

    Raises:
        PeerMissing: This is no Debian or Ubuntu, or its archive cannot be reached.
    """
    if missing := [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]:
        raise PeerMissing(f"cannot fetch {package}: there is no {missing[0]} here; put {_programs(package)} on PATH")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        try:
            _run(["apt-get", "download", package], folder, package)
        except PeerMissing:  # the package lists are missing or old
            _run(["apt-get", "update"], folder, package)
            _run(["apt-get", "download", package], folder, package)
        (archive,) = Path(folder).glob("*.deb")
        _run(["dpkg", "-x", str(archive), "unpacked"], folder, package)
        for name in (name for name, found in PACKAGES.items() if found == package):
            program = Path(folder, "unpacked", "usr", "bin", name)
            program.write_bytes(program.read_bytes().replace(*TEMPLATES))
        shutil.rmtree(CACHE / package, ignore_errors=True)
        Path(folder, "unpacked").replace(CACHE / package)


def main() -> int:
    """Fetch what is missing, print where each peer is, and return the exit status."""
    try:
        for package in sorted({package for name, package in PACKAGES.items() if (_on_path(name) or _unpacked(name)) is None}):
            fetch(package)
        if shutil.which("npm") and node_modules() is None:
            fetch_node_package()
        for name in (*PACKAGES, "rotel"):
            print(f"{name}\t{peer(name)}")  # noqa: T201 - what this program is for
    except PeerMissing as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _unpacked(name: str) -> Path | None:
    path = CACHE / PACKAGES[name] / "usr" / "bin" / name
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _rotel() -> Path | None:
    package = importlib.util.find_spec("rotel")
    for folder in (package and package.submodule_search_locations) or ():
        if os.access(agent := Path(folder, "rotel-agent"), os.X_OK):
            return agent
    return None


def _programs(package: str) -> str:
    return " and ".join(name for name, found in PACKAGES.items() if found == package)


def _run(command: list[str], folder: str, package: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = next((line for line in lines if line.startswith("E:")), lines[-1] if lines else "no reason given")
        remedy = f"; put {_programs(package)} on PATH" if package in PACKAGES.values() else ""
        raise PeerMissing(f"cannot fetch {package}: {' '.join(command)}: {reason}{remedy}") from error


if __name__ == "__main__":
    sys.exit(main())
