"""Who listens on an endpoint, and that nobody's place is taken."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import zmq

from headwatch.config import WireConfig
from headwatch.errors import CommandError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.wire.endpoint import listens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("form", ["ipc://{path}/wire", "ipc://@{path}/wire", "tcp://127.0.0.1:{port}"])
def test_a_bound_socket_is_seen_for_as_long_as_it_is_bound(tmp_path: Path, form: str):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    endpoint = form.format(path=tmp_path, port=port)
    assert listens(endpoint) is False
    with zmq.Context() as context, context.socket(zmq.PULL) as bound:
        bound.bind(endpoint)
        assert listens(endpoint) is True
        if form.startswith("tcp"):
            assert listens(f"tcp://*:{port}") is True
    assert listens(endpoint) is False


def test_what_cannot_be_told_is_not_guessed():
    assert listens("inproc://here") is None
    assert listens("tcp://127.0.0.1:*") is None


def test_a_second_sidecar_does_not_take_the_place_of_the_first_on_a_path(tmp_path: Path):
    """libzmq would let it, and the first one's workers would go over to it."""
    config = WireConfig(endpoint=f"ipc://{tmp_path}/wire")
    first = Receiver(config, WorkerRegistry(), lambda *_: None)
    first.start()
    with pytest.raises(CommandError, match="Address already in use; is another sidecar running"):
        Receiver(config, WorkerRegistry(), lambda *_: None).start()
    first.stop()


def test_the_socket_file_of_a_sidecar_that_was_killed_is_no_hindrance(tmp_path: Path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(f"{tmp_path}/wire")
    left.close()
    assert (tmp_path / "wire").exists()
    following = Receiver(WireConfig(endpoint=f"ipc://{tmp_path}/wire"), WorkerRegistry(), lambda *_: None)
    following.start()
    following.stop()
