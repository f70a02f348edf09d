"""A real OTLP receiver, and what it understood of what it was sent."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from headwatch.config import OtlpConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_SECONDS = 15.0
_ATTRIBUTE = re.compile(r"^     -> (.+?): Str\((.*)\)$")
_FIELD = re.compile(r"^(?:     -> )?([A-Za-z]+): (.+)$")


@dataclass
class ReceivedPoint:
    """One data point as the receiver printed it."""

    name: str = ""
    metric: dict[str, str] = field(default_factory=dict)
    """``Name Description Unit DataType AggregationTemporality IsMonotonic``, where they are given."""
    resource: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    """``StartTimestamp Timestamp Value``, or ``Count Sum Min Max`` of a histogram."""
    buckets: dict[tuple[float, float], int] = field(default_factory=dict)
    """Count by ``(lower, upper]`` bound."""

    @property
    def series(self) -> tuple[str, tuple[tuple[str, str], ...], str]:
        """Return what tells this point's series from all others."""
        return self.name, tuple(sorted(self.attributes.items())), self.resource.get("service.instance.id", "")


class Receiver:
    """A running receiver."""

    def __init__(self, log: Path, ports: dict[str, int]) -> None:
        self._log = log
        self.ports = ports
        """By protocol."""

    def config(self, protocol: Literal["grpc", "http"]) -> OtlpConfig:
        """Return the configuration that sends here."""
        path = "/v1/metrics" if protocol == "http" else ""
        return OtlpConfig(
            endpoint=f"http://127.0.0.1:{self.ports[protocol]}{path}", protocol=protocol, timeout_seconds=5.0
        )

    def printed(self, at_least: int, pattern: str) -> str:
        """Return all that was printed, as soon as *pattern* is in it so often."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := len(re.findall(pattern, text := self._log.read_text(), re.MULTILINE))) < at_least:
            if time.monotonic() > deadline:
                raise AssertionError(f"the receiver printed {pattern} {found} times of {at_least} in {WAIT_SECONDS:.0f} s")
            time.sleep(0.05)
        return text

    def points(self, at_least: int) -> list[ReceivedPoint]:
        """Return the points printed so far, oldest first, as soon as there are so many."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(found := parse(self._log.read_text())) < at_least:
            if time.monotonic() > deadline:
                raise AssertionError(f"the receiver printed {len(found)} points of {at_least} in {WAIT_SECONDS:.0f} s")
            time.sleep(0.05)
        return found


@contextmanager
def receiver(
    program: Path, folder: Path, ports: dict[str, int] | None = None, shows: Literal["metrics", "traces"] = "metrics"
) -> Iterator[Receiver]:
    """Run a receiver for gRPC and HTTP on *ports* (default: free ones) of this machine; its files go to *folder*.

    It takes everything, and prints what it *shows*.
    """
    ports = ports or dict(zip(("grpc", "http"), free_ports(2), strict=True))
    log = folder / "receiver.log"
    command = [
        str(program), "start", "--exporter", "blackhole", "--debug-log", shows, "--debug-log-verbosity", "detailed",
        "--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}", "--otlp-http-endpoint", f"127.0.0.1:{ports['http']}",
        "--pid-file", str(folder / "receiver.pid"),
    ]  # fmt: skip
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            for port in ports.values():
                _wait_for(port, process, log)
            yield Receiver(log, ports)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def parse(text: str) -> list[ReceivedPoint]:
    """Return the points of the receiver's detailed log; one that is printed only in part is left out."""
    complete = text[: text.rfind("\n") + 1]
    points: list[ReceivedPoint] = []
    resource: dict[str, str] = {}
    metric: dict[str, str] = {}
    target: dict[str, str] = {}
    for line in complete.splitlines():
        if line.startswith("ResourceMetrics #"):
            resource = target = {}
        elif line.startswith("Metric #"):
            metric = target = {}
        elif re.match(r"\w+DataPoints #\d+$", line):
            points.append(ReceivedPoint(metric["Name"], metric, resource))
            target = points[-1].fields
        elif line.startswith("Bucket "):
            bounds = re.match(r"Bucket [(\[](\S+), (\S+)[)\]], Count: (\d+)", line)
            assert bounds is not None, line
            points[-1].buckets[float(bounds[1]), float(bounds[2])] = int(bounds[3])
        elif target is not metric and (match := _ATTRIBUTE.match(line)):
            (resource if target is resource else points[-1].attributes)[match[1]] = match[2]
        elif match := _FIELD.match(line):
            target[match[1]] = match[2]
    return [point for point in points if "Value" in point.fields or "Max" in point.fields]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the receiver does not listen on {port}: {log.read_text()[-500:]}") from None
            time.sleep(0.05)
        else:
            return
