"""How much of the machine others used while a benchmark ran: a result from a busy machine must be seen to be one."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")


def _busy_seconds() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and those that a hypervisor took, since the machine started."""
    try:
        user, nice, system, _idle, _wait, irq, softirq, steal = (
            int(value) for value in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        )
    except (OSError, ValueError):
        return 0.0, 0.0
    return (user + nice + system + irq + softirq) * _TICK_SECONDS, steal * _TICK_SECONDS


def _own_seconds(root: int) -> float:
    """Return the processor time of process *root* and all processes below it."""
    found: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(folder.name)] = (int(fields[1]), sum(int(value) for value in fields[11:15]) * _TICK_SECONDS)
    family, grown = {root}, True
    while grown:
        grown = False
        for process, (parent, _) in found.items():
            if parent in family and process not in family:
                family.add(process)
                grown = True
    return sum(seconds for process, (_, seconds) in found.items() if process in family)


@dataclass(slots=True)
class Bystanders:
    """Measures from its creation on."""

    _started: float = field(default_factory=time.monotonic)
    _busy: tuple[float, float] = field(default_factory=_busy_seconds)
    _own: float = field(default_factory=lambda: _own_seconds(os.getpid()))

    def share(self) -> float:
        """Return the share of all cores' time that went to other processes, or to other machines on the same host."""
        elapsed = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        busy, steal = _busy_seconds()
        others = busy - self._busy[0] - (_own_seconds(os.getpid()) - self._own) + steal - self._busy[1]
        return round(max(others, 0.0) / elapsed, 4) if elapsed > 0 else 0.0
