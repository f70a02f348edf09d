"""The machine's C compiler, once: a kernel's source becomes a shared object that is kept for the next start.

vLLM on a CPU compiles its model with the same compiler, so one is nearly always there; where none is, the caller falls
back to torch or numpy and says so.  The object is named after its source, the compiler, its flags and the processor, so
a changed machine or release compiles anew (two seconds) and nothing stale is ever loaded.  A folder that others may
write to is not used: what is loaded from it would run inside the engine or the sidecar.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from headwatch.errors import CannotCompile

FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")
_TUNED = ("-march=native",)
_TIMEOUT_SECONDS = 120.0


def compiled(source: Path, flags: tuple[str, ...] = ()) -> Path:
    """Return the shared object of *source*, compiled where it is not at hand.  The headers beside it belong to it.

    Raises:
        CannotCompile: There is none, it fails, or there is no safe place for its output.
    """
    compiler = _compiler()
    texts = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    version = _run([compiler, "--version"])
    parts = (*texts, compiler.encode(), version, repr((FLAGS, _TUNED, flags)).encode(), _processor())
    key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]
    target = _folder() / f"{source.stem}-{key}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [compiler, *FLAGS, *flags, str(source), "-o", str(made), "-lm"]
        try:
            _run([*command, *_TUNED])
        except CannotCompile:  # not every compiler knows its own machine
            _run(command)
        made.replace(target)  # atomic: two workers that start together both win
    return target


def _compiler() -> str:
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise CannotCompile("no C compiler (cc, gcc or clang) is installed")


def _run(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)  # noqa: S603 - the machine's compiler on our own source
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f"{command[0]} does not run: {error}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise CannotCompile(f"{command[0]} failed: {lines[0]}")
    return done.stdout


def _processor() -> bytes:
    """Return what tells one kind of processor from another: ``-march=native`` code must not travel."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        lines = []
    wanted = (b"model name", b"flags", b"Features", b"CPU part")
    return b"\n".join(sorted({line for line in lines if line.startswith(wanted)})) + os.uname().machine.encode()


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/nonexistent") / ".cache"
    folder = Path(base) / "headwatch" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError as error:
        raise CannotCompile(f"no folder for compiled kernels: {error}") from error
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CannotCompile(f"{folder} may be written by others; chmod 700 it")
    return folder
