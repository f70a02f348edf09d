"""What every exporter keeps to, whatever is behind it.  The peers are real."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headwatch.config import OtlpConfig, PrometheusConfig, SpoolConfig, StoreConfig
from headwatch.errors import ExportError
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.memory import MemoryExporter
from headwatch_exporters.otlp import OtlpExporter
from headwatch_exporters.prometheus import PrometheusExporter

from ..programs import wait_for
from ..unit.incidents import found
from .deliveries import contents, empty, full, undefined
from .otlp_receiver import free_ports, receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headwatch.records import Delivery
    from headwatch_exporters.base import Exporter

SECOND = 1_000_000_000


@dataclass
class Subject:
    """An exporter, and what one sees on the side that it exports to."""

    exporter: Exporter
    look: Callable[[int], dict[Any, float]]
    """Return a number by series or table, given how many points were exported."""
    exported: int = 0

    def export(self, delivery: Delivery) -> int:
        count = self.exporter.export(delivery)
        self.exported += count
        return count

    def seen(self) -> dict[Any, float]:
        return self.look(self.exported)


@contextmanager
def memory(_: pytest.FixtureRequest, __: Path) -> Iterator[Subject]:
    exporter = MemoryExporter()
    yield Subject(exporter, lambda _: {"deliveries": len(exporter.deliveries)})


@contextmanager
def prometheus(_: pytest.FixtureRequest, __: Path) -> Iterator[Subject]:
    exporter = PrometheusExporter(PrometheusConfig())

    def look(_: int) -> dict[Any, float]:
        families = text_string_to_metric_families(exporter.render(None)[0].decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    yield Subject(exporter, look)


@contextmanager
def clickhouse(_: pytest.FixtureRequest, folder: Path) -> Iterator[Subject]:
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{folder}/store"))
    yield Subject(exporter, lambda _: exporter.reader().counts())


@contextmanager
def clickhouse_spooled(_: pytest.FixtureRequest, folder: Path) -> Iterator[Subject]:
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{folder}/store"), SpoolConfig(), folder / "spool")

    def look(_: int) -> dict[Any, float]:
        wait_for(lambda: (state := exporter.spool_health()) is not None and not state.records, "the spool to drain")
        return exporter.reader().counts()

    yield Subject(exporter, look)


@contextmanager
def _otlp(request: pytest.FixtureRequest, folder: Path, protocol: Any) -> Iterator[Subject]:
    with receiver(request.getfixturevalue("rotel_binary"), folder) as running:
        exporter = OtlpExporter(running.config(protocol))
        yield Subject(
            exporter,
            lambda exported: {
                point.series: float(point.fields.get("Value") or point.fields["Count"])
                for point in running.points(exported)  # the last one of a series stands
            },
        )


@contextmanager
def otlp_grpc(request: pytest.FixtureRequest, folder: Path) -> Iterator[Subject]:
    with _otlp(request, folder, "grpc") as subject:
        yield subject


@contextmanager
def otlp_http(request: pytest.FixtureRequest, folder: Path) -> Iterator[Subject]:
    with _otlp(request, folder, "http") as subject:
        yield subject


@pytest.fixture(
    params=[
        memory,
        prometheus,
        pytest.param(clickhouse, marks=pytest.mark.store),
        pytest.param(clickhouse_spooled, marks=pytest.mark.store),
        pytest.param(otlp_grpc, marks=pytest.mark.peer),
        pytest.param(otlp_http, marks=pytest.mark.peer),
    ],
    ids=lambda made: made.__name__,
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with request.param(request, tmp_path) as made:
        yield made
        made.exporter.close()


def test_nothing_to_say_is_no_error(subject: Subject):
    """A pair that has just started delivers neither windows nor requests nor workers."""
    assert subject.export(empty(time.time_ns())) == 0


def test_what_was_exported_is_counted_and_seen(subject: Subject):
    assert subject.export(full(time.time_ns())) > 0
    assert any(subject.seen().values())


def test_a_retry_doubles_nothing(subject: Subject):
    """A delivery whose answer was lost is exported again, and changes nothing on the other side."""
    delivery = full(time.time_ns())
    subject.export(delivery)
    before = subject.seen()
    subject.export(delivery)
    subject.export(delivery)
    assert subject.seen() == before


def test_the_next_delivery_counts(subject: Subject):
    """Only the same delivery is a retry: an equal one of a later moment is news."""
    now_ns = time.time_ns()
    subject.export(full(now_ns))
    before = subject.seen()
    subject.export(full(now_ns + 6 * SECOND))
    after = subject.seen()
    assert any(after[name] > before[name] for name in before)
    assert all(after[name] >= before[name] for name in before)


def test_undefined_values_are_no_error_and_no_zero(subject: Subject):
    """Ratios that no row defines are None, means of heads NaN: a request without a ratio adds no grounding ratio of 0."""
    assert subject.export(undefined(time.time_ns())) > 0
    seen = subject.seen()
    assert not any("grounding_ratio" in str(name) or "grounding.ratio" in str(name) for name in seen)
    assert all(value == value for value in seen.values())  # noqa: PLR0124 - NaN is the number that is not itself


def test_what_was_found_is_exported_once(subject: Subject):
    """Drift, incidents, canaries and pagers go wherever the rest goes, and a retry doubles none of it."""
    delivery = found(full(time.time_ns()))
    whole = contents(delivery)
    subject.export(delivery)
    before = subject.seen()
    subject.export(delivery)
    assert subject.seen() == before
    assert contents(delivery) == whole


def test_a_delivery_belongs_to_every_exporter(subject: Subject):
    """Exporters are handed the same object on threads of their own; none may change it."""
    delivery = full(time.time_ns())
    before = contents(delivery)
    subject.export(delivery)
    assert contents(delivery) == before


def test_an_exporter_that_never_exported_closes(subject: Subject):
    """Which the fixture does."""
    assert subject.exporter.name in {"memory", "prometheus", "clickhouse", "otlp"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_receiver_that_is_away_is_an_error_in_time(protocol: Any):
    """The exporter gives up within its timeout, and says which receiver and which protocol."""
    (port,) = free_ports(1)
    path = "/v1/metrics" if protocol == "http" else ""
    endpoint = f"http://127.0.0.1:{port}{path}"
    exporter = OtlpExporter(OtlpConfig(endpoint=endpoint, protocol=protocol, timeout_seconds=1.0))
    started = time.monotonic()
    with pytest.raises(ExportError, match=rf"{endpoint} .*\({protocol}\)"):
        exporter.export(full())
    assert time.monotonic() - started < 3.0
    exporter.close()


@pytest.mark.peer
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_was_lost_is_contained_in_what_comes_next(protocol: Any, rotel_binary: Path, tmp_path: Path):
    """Everything sent by OTLP is cumulative: a delivery that never arrived is part of the next one that does."""
    with receiver(rotel_binary, tmp_path) as running:
        config = running.config(protocol)
    exporter = OtlpExporter(OtlpConfig(endpoint=config.endpoint, protocol=protocol, timeout_seconds=1.0))
    now_ns = time.time_ns()
    with pytest.raises(ExportError):
        exporter.export(full(now_ns))
    with receiver(rotel_binary, tmp_path, ports=running.ports) as running:
        count = _retried(exporter, full(now_ns + SECOND))
        counted = [
            point.fields["Value"] for point in running.points(count) if point.name == "headwatch.grounding.requests"
        ]
    exporter.close()
    assert counted == ["6"]


def _retried(exporter: Exporter, delivery: Delivery) -> int:
    """Export as the pipeline does: a peer that has just come back is not connected at once."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return exporter.export(delivery)
        except ExportError:
            assert time.monotonic() < deadline, "the receiver is back, and the exporter does not notice"
            time.sleep(0.2)
