"""Kills a writer again and again, and tells what became of each delivery that it was told is spooled.

Run inside a mount namespace (``python -m tests.integration.spool_kills FOLDER KILLS SEED MIB``) the folder becomes a small disk
of its own, which is filled up in some of the rounds.
"""

# ruff: noqa: T201 - what it prints is what it is for

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 1.0


@dataclass
class Tally:
    """What was told, and what was found."""

    kills: int = 0
    spooled: int = 0
    """Deliveries of which the exporter said that it has them."""
    refused: int = 0
    """Of which it said that it does not: the disk was full."""
    in_doubt: int = 0
    """Begun, and the process killed before it said anything."""
    in_doubt_arrived: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    """In doubt, and in some of the tables only."""
    refused_arrived: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    aside: int = 0

    def verify(self, kills: int) -> None:
        assert self.kills == kills, self
        assert (self.missing, self.doubled, self.partial, self.refused_arrived) == ([], [], [], []), self
        assert (self.dropped, self.aside) == ({}, 0), self
        assert self.in_doubt <= kills, self


def writer(url: str, folder: Path, *what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.spool_writer", url, str(folder), *what]
    with (folder.parent / "writer.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)


def finished(url: str, folder: Path, what: str, seconds: float = 1500.0) -> str:
    process = writer(url, folder, what)
    try:
        text, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (folder.parent / "writer.log").read_text()[-3000:]
    return text


def run(
    url: str, folder: Path, kills: int, seed: int, between: Callable[[random.Random], None] = lambda _: None,
    pause_seconds: float = 0.1,
) -> Tally:  # fmt: skip
    """Kill *kills* writers at random instants, *between* being called before each kill; then let one drain the spool.

    They wait *pause_seconds* after each delivery.
    """
    chance = random.Random(seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    finished(url, folder, "prepare")
    told: dict[int, str] = {}
    number = 0
    for _ in range(kills):
        process = writer(url, folder, str(number), str(pause_seconds))
        assert process.stdout is not None
        heard = [""]
        awaited = chance.choice(("", "open", "begin", "took", "took", "took"))  # "": it may be killed while it starts
        while awaited and not heard[-1].startswith((awaited, "refused")):
            heard.append(process.stdout.readline())
            assert heard[-1], (folder.parent / "writer.log").read_text()[-3000:]
        until = time.monotonic() + chance.random() * MAX_SECONDS
        between(chance)
        time.sleep(max(0.0, until - time.monotonic()))
        assert process.poll() is None, (folder.parent / "writer.log").read_text()[-3000:]
        process.kill()
        for line in [*heard[1:], *process.communicate()[0].splitlines()]:
            word, *rest = line.split()
            if word != "open":
                told[int(rest[0])] = word
        number = max(told, default=-1) + 1
    print(f"{kills} kills, {len(told)} deliveries begun; draining", file=sys.stderr, flush=True)
    return tally(kills, told, json.loads(finished(url, folder, "drain")))


def tally(kills: int, told: dict[int, str], answer: dict) -> Tally:
    found = answer["found"]
    result = Tally(kills, dropped=answer["dropped"], aside=answer["aside"])
    whole = {name: sorted(map(tuple, counts.values()))[len(counts) // 2] for name, counts in found.items() if counts}
    for number, word in told.items():
        counts = {name: tuple(found[name].get(f"w{number}", (0, 0))) for name in found}
        name = f"w{number}: {counts}"
        if counts == whole:
            arrived = True
        else:
            arrived = False
            if any(count > whole[table] for table, count in counts.items()):
                result.doubled.append(name)
            elif any(count != (0, 0) for count in counts.values()):
                result.partial.append(name)
        if word == "took":
            result.spooled += 1
            if not arrived:
                result.missing.append(name)
        elif word == "refused":
            result.refused += 1
            if arrived:
                result.refused_arrived.append(name)
        else:
            result.in_doubt += 1
            result.in_doubt_arrived += arrived
    return result


class SmallDisk:
    """A disk of some MiB that is full in a part of the rounds."""

    def __init__(self, folder: Path, mib: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)
        self._filler = folder / "filler"
        self.filled = 0

    def between(self, chance: random.Random) -> None:
        if chance.random() < 0.4:
            time.sleep(chance.random() * 0.4)
            self.fill()
            self.filled += 1
            time.sleep(chance.random() * 0.4)
        if chance.random() < 0.7:
            self._filler.unlink(missing_ok=True)

    def fill(self) -> None:
        """Fill the disk as fast as memory can be written, be it within an insert or a merge."""
        with self._filler.open("ab") as file:
            try:
                while True:
                    os.write(file.fileno(), b"x" * 65536)
            except OSError:
                return

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


def main() -> None:
    folder, kills, seed, mib = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    disk = SmallDisk(folder, mib)

    def between(chance: random.Random) -> None:
        disk.between(chance)
        rounds[0] += 1
        if rounds[0] == kills:
            disk.free()

    rounds = [0]
    store = folder if "all" in sys.argv[5:] else folder.with_name("elsewhere")
    store.mkdir(exist_ok=True)
    result = run(f"chdb://{store}/store", folder / "spool", kills, seed, between)
    print(json.dumps({**asdict(result), "filled": disk.filled}))


if __name__ == "__main__":
    main()
