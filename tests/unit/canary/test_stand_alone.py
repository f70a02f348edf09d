"""A receiver without a sidecar: frames over a real socket become signatures, and a second receiver is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import zmq

from headwatch.canary.signature import Signature
from headwatch.config import Config, WireConfig
from headwatch.demo.processes import free_ports
from headwatch.errors import CommandError
from headwatch.stand_alone import StandAlone
from headwatch.wire import codec

from ...programs import wait_for
from ..frames import HEADS, LAYERS, PROMPT, context, status, summary


def test_frames_of_a_canary_become_its_signature_and_traffic_is_left_alone() -> None:
    canary = msgspec.structs.replace(context("e-1"), request_id="chatcmpl-1", canary="short", full=True)
    rows = [(position, {"entropy": position / 16}, [0.2] * 5) for position in range(PROMPT - 8, PROMPT)]
    frames = [summary(rows[:5], request=canary), summary([(10, {"entropy": 0.5}, [0.2] * 5)], sequence=1),
              summary(rows[5:], request=canary, sequence=2, finished=["e-1"]), status(3)]  # fmt: skip
    config = Config(wire=WireConfig(endpoint=f"tcp://127.0.0.1:{free_ports(1)[0]}"))
    with StandAlone(config) as alone, zmq.Context() as sockets, sockets.socket(zmq.PUSH) as socket:
        assert alone.workers == 0
        socket.connect(config.wire.endpoint)
        for frame in frames:
            socket.send(codec.encode(frame))
        found = alone.collector.take("chatcmpl-1", 30.0)
        assert isinstance(found, Signature)
        assert (found.prompt, found.values.shape) == ("short", (8, LAYERS, HEADS, 6))
        np.testing.assert_array_equal(found.values[:, 0, 0, 0], np.arange(PROMPT - 8, PROMPT, dtype=np.float32) / 16)
        wait_for(lambda: alone.workers == 1, "the status")
        assert "no rows" in str(alone.collector.take("r", 0.0)), "ordinary requests are no canaries"
        with pytest.raises(CommandError, match="is another sidecar running"), StandAlone(config):
            pass
