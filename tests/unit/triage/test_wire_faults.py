"""The relay that recordings are made through: nothing changes while nothing is wrong, and each fault is the one it says."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import zmq

from headwatch.bench.triage import layer_fault, tape
from headwatch.bench.triage.wire_faults import LOST_SHARE, SKEW_NS, Relay
from headwatch.model import StatusFrame
from headwatch.wire import codec

from ..frames import summary, worker


def status() -> StatusFrame:
    return StatusFrame(worker(), 7, 123, True, "", {}, {}, {}, 0.0, 0.0, 1.0, 1, "v1", "cpu")


FRAME = codec.encode(summary([(9, {"entropy": 0.5}, [0.1] * 5)]))


@pytest.fixture
def context():
    with zmq.Context() as made:
        yield made


def relayed(context, frames: list[bytes], folder: Path, mode: str = "clean") -> list[bytes]:
    """Return what a sidecar receives of *frames*, through a relay on real sockets."""
    listen, forward = (f"ipc://{folder}/{uuid4().hex[:8]}" for _ in range(2))
    source, target = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    target.bind(forward)
    source.connect(listen)
    try:
        with Relay(listen, forward, tape=folder / "frames.tape") as relay:
            relay.mode = mode
            for frame in frames:
                source.send(frame)
            found = []
            while target.poll(500 if found or mode != "clean" else 3000):
                found.append(target.recv())
            return found
    finally:
        source.close(0)
        target.close(0)


def test_a_clean_wire_changes_no_byte_and_keeps_the_order(context, tmp_path: Path):
    frames = [FRAME, codec.encode(status()), b"no frame at all"]
    assert relayed(context, frames, tmp_path) == frames
    assert [frame for _, frame in tape.frames(tmp_path / "frames.tape")] == frames


def test_a_lossy_wire_loses_the_share_it_says_and_no_status():
    relay = Relay("ipc:///none", "ipc:///none", seed=3)
    relay.mode = "lossy"
    passed = [relay.altered(FRAME) for _ in range(1000)]
    assert relay.lost == passed.count(None)
    assert abs(relay.lost / 1000 - LOST_SHARE) < 0.05
    assert set(passed) == {None, FRAME}
    kept = codec.encode(status())
    assert all(relay.altered(kept) == kept for _ in range(50))


def test_a_skewed_clock_is_off_in_every_frame_and_nothing_else_is():
    relay = Relay("ipc:///none", "ipc:///none")
    relay.mode = "skewed"
    for frame in (codec.decode(FRAME), status()):
        changed = codec.decode(relay.altered(codec.encode(frame)))
        assert changed.time_ns == frame.time_ns + SKEW_NS
        assert msgspec.structs.replace(changed, time_ns=frame.time_ns) == frame


def test_a_tape_that_was_cut_off_ends_at_its_last_whole_frame(tmp_path: Path):
    path = tmp_path / "cut.tape"
    with tape.Tape(path) as written:
        written.keep(5, b"one")
        written.keep(6, b"another")
    path.write_bytes(path.read_bytes()[:-2])
    assert list(tape.frames(path)) == [(5, b"one")]


def test_the_planted_fault_is_a_plugin_that_the_engine_finds(tmp_path: Path):
    """Found by importlib.metadata from a folder on the path, which is how vLLM looks for plugins."""
    from importlib.metadata import distributions

    folder = layer_fault.install(tmp_path)
    points = [point for found in distributions(path=[str(folder)]) for point in found.entry_points]
    assert [(point.group, point.load()) for point in points] == [("vllm.general_plugins", layer_fault.register)]
