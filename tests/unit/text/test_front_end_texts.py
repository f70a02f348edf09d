"""Texts on their way out of vLLM's front end: only where they are wanted, never in the request's way, never lost uncounted."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zmq
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace
from tokenizers.models import WordLevel

from headwatch.capture.output import texts as module
from headwatch.capture.output.texts import QUEUE_TEXTS
from headwatch.capture.request.front_end import FrontEnd, Reader
from headwatch.client import request_field
from headwatch.config import CaptureConfig, TextConfig, TextRoute, WireConfig
from headwatch.config.text import REDACTION_MARGIN
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import TextFrame
from headwatch.wire import codec

from ...programs import wait_for
from ..test_front_end import ALL, IDS, NONE, TOKENIZER, Parameters, Request
from .texts import KEPT, NOW_NS, keeper, opened, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "zebra-secret-77"
PROMPT = {"type": "token", "prompt_token_ids": IDS, "prompt": f"Say {SECRET}."}


@pytest.fixture
def wire(tmp_path: Path) -> WireConfig:
    return WireConfig(endpoint=f"ipc://{tmp_path}/wire")


@pytest.fixture
def arrived(wire: WireConfig) -> Iterator[list[Any]]:
    """What arrives at the sidecar's end, in turn."""
    frames: list[Any] = []
    ended = threading.Event()

    def receive() -> None:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            socket.bind(wire.endpoint)
            while not ended.is_set():
                if socket.poll(50):
                    frames.append(codec.decode(socket.recv()))

    thread = threading.Thread(target=receive)
    thread.start()
    yield frames
    ended.set()
    thread.join()


def annotate(front_end: FrontEnd, prompt: Any = PROMPT, **parts: Any) -> None:
    front_end.annotate(Request(**parts), TOKENIZER, prompt=prompt, model="served")


def test_without_the_setting_there_is_no_thread_and_no_frame(wire: WireConfig, arrived: list[Any]):
    """Off is the default, also with routes that would keep texts."""
    before = threading.active_count()
    off = TextConfig(default="keep", routes={"": TextRoute(keep=True)})
    for front_end in (FrontEnd(ALL, wire), FrontEnd(ALL, wire, off)):
        annotate(front_end)
        assert front_end.sampled == 1
        assert front_end.texts is None
    assert threading.active_count() == before
    time.sleep(0.3)
    assert arrived == []


def test_a_sampled_text_travels_with_what_is_known_of_its_request(wire: WireConfig, arrived: list[Any]):
    front_end = FrontEnd(ALL, wire, KEPT)
    field = request_field(route="hr", user="ada", documents=[{"id": "a", "text": "Paris is the capital."}])
    annotate(front_end, sampling_params=Parameters(field))
    wait_for(lambda: bool(arrived), "the text")
    (frame,) = arrived
    assert isinstance(frame, TextFrame)
    assert (frame.text, frame.chars, frame.model, frame.sequence) == (
        PROMPT["prompt"],
        len(PROMPT["prompt"]),
        "served",
        0,
    )
    assert (frame.context.route, frame.context.user, frame.context.request_id) == ("hr", "ada", "chatcmpl-1")
    assert ([document.id for document in frame.context.documents], frame.context.spans) == (["a"], [])
    assert front_end.texts is not None
    front_end.texts.stop()


def test_a_prompt_of_token_ids_is_decoded_on_the_thread(wire: WireConfig, arrived: list[Any]):
    """As far as it is kept, and told how long it is at least."""
    whole = TOKENIZER.decode(IDS)
    many = IDS * 400
    front_end = FrontEnd(ALL, wire, TextConfig(enabled=True, default="keep", max_chars=64))
    assert front_end.texts is not None
    annotate(front_end, {"type": "token", "prompt_token_ids": IDS})
    annotate(front_end, {"type": "token", "prompt_token_ids": many}, prompt_token_ids=many)
    wait_for(lambda: len(arrived) == 2, "both")
    assert (arrived[0].text, arrived[0].chars) == (whole, len(whole))
    assert arrived[1].text == TOKENIZER.decode(many)[: 64 + REDACTION_MARGIN]
    assert 64 + REDACTION_MARGIN < arrived[1].chars <= len(TOKENIZER.decode(many))
    front_end.texts.stop()


@pytest.mark.parametrize("tokens", [4, 5, 7, 50, 2000])
def test_a_prompt_that_is_decoded_in_pieces_reads_as_in_one(monkeypatch: pytest.MonkeyPatch, tokens: int):
    """Also where a character has several tokens, and where the ids are no text at all."""
    monkeypatch.setattr(module, "PIECE_TOKENS", tokens)
    text = "Grüße 語語 👩‍👩‍👧 a  b , c . 'tis\n\nend <|im_end|> ferry " * 5
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert len(TOKENIZER.encode("👩", add_special_tokens=False)) > 1
    broken = TOKENIZER.encode("語", add_special_tokens=False)[:2] + IDS
    for given in (ids, IDS * 3, broken, ids[3:]):
        whole = TOKENIZER.decode(given)
        assert module._decoded(_draft(given, 10_000)) == (whole, len(whole))
        found, chars = module._decoded(_draft(given, 40))
        assert found == whole[:40].rstrip("\ufffd") or found == whole[:40]
        assert chars >= len(found)


def test_a_piece_reads_as_it_does_behind_the_one_before(monkeypatch: pytest.MonkeyPatch):
    """SentencePiece's decoder leaves out the blank before the first word of what it is given."""
    monkeypatch.setattr(module, "PIECE_TOKENS", 7)
    tokenizer = Tokenizer(WordLevel({"\u2581ferry": 0, "\u2581where": 1}))
    tokenizer.decoder = Metaspace()
    ids = [0, 1, 1, 0] * 20
    assert tokenizer.decode(ids).startswith("ferry where where ferry ferry")
    draft = replace(_draft(ids, 10_000), reader=SimpleNamespace(lock=threading.Lock(), tokenizer=tokenizer))  # type: ignore[arg-type] # what it has of a reader is used
    assert module._decoded(draft)[0] == tokenizer.decode(ids)


def test_other_threads_get_the_tokenizer_between_the_pieces(monkeypatch: pytest.MonkeyPatch):
    draft = _draft(IDS * 2000, 2**18)
    held: list[int] = []
    decode = draft.reader.tokenizer.decode  # type: ignore[union-attr] # it has one

    def counted(ids: list[int]) -> str:
        assert draft.reader is not None
        assert draft.reader.lock.locked()
        held.append(len(ids))
        return str(decode(ids))

    monkeypatch.setattr(draft.reader, "tokenizer", SimpleNamespace(decode=counted))
    text, _ = module._decoded(draft)
    assert text == TOKENIZER.decode(IDS * 2000)[: 2**18]
    assert max(held) <= module.PIECE_TOKENS + module._BEFORE_TOKENS


def _draft(ids: list[int], limit: int) -> module.Draft:
    frame = text_frame()
    return module.Draft(0, frame.time_ns, 0.0, "m", frame.context, limit, None, len(ids), ids, Reader(TOKENIZER))


def test_token_ids_of_several_a_character_are_enough_for_the_limit_and_its_margin(wire: WireConfig, arrived: list[Any]):
    """What a card would be cut by is beyond the margin there too."""
    text = "語" * 190 + "4111 1111 1111 1111" + " tail" * 400
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    config = TextConfig(enabled=True, default="keep", max_chars=200)
    front_end = FrontEnd(ALL, wire, config)
    annotate(front_end, {"type": "token", "prompt_token_ids": ids}, prompt_token_ids=ids)
    wait_for(lambda: bool(arrived), "the text")
    assert arrived[0].text == text[: 200 + REDACTION_MARGIN]
    row = keeper(config).kept(msgspec.structs.replace(arrived[0], time_ns=NOW_NS))
    assert opened(row) == "語" * 190 + "[card]"
    assert front_end.texts is not None
    front_end.texts.stop()


def test_no_text_waits_in_here_for_longer_than_a_minute(tmp_path: Path, wire: WireConfig):
    """What waited while the sidecar was stopped, for a purge say, is not sent when it is back; the gap is counted."""
    now = [1000.0]
    sender = module.TextSender(KEPT, wire, clock=lambda: now[0])
    for number in range(5):
        sender.take(text_frame(request_id=f"old-{number}").context, "m", "old", (), None)
    wait_for(lambda: sender._queue.qsize() == 4, "the first to be encoded")
    time.sleep(0.1)
    now[0] += module.MOST_SECONDS + 1
    wait_for(lambda: sender.errors["too_old"] == 5, "them to be dropped")
    frames: list[TextFrame] = []
    receiver = Receiver(wire, WorkerRegistry(), lambda *_: None, texts=frames.append)
    receiver.start()
    try:
        sender.take(text_frame(request_id="new").context, "m", "new", (), None)
        wait_for(lambda: bool(frames), "the new one")
    finally:
        receiver.stop()
    sender.stop()
    assert [(frame.text, frame.sequence) for frame in frames] == [("new", 5)]
    assert sender.errors == {"too_old": 5}


def test_numbers_stand_in_the_queue_in_their_order(wire: WireConfig, monkeypatch: pytest.MonkeyPatch):
    """A text that overtook another would be counted as a loss."""
    sender = module.TextSender(KEPT, wire)
    monkeypatch.setattr(sender, "_run", lambda: None)
    put = sender._queue.put_nowait

    def slow(draft: module.Draft) -> None:
        time.sleep(0.05 if draft.sequence == 0 else 0.0)
        put(draft)

    monkeypatch.setattr(sender._queue, "put_nowait", slow)
    threads = [threading.Thread(target=sender.take, args=(text_frame().context, "m", "text", (), None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sender._queue.get_nowait().sequence for _ in threads] == list(range(8))


@pytest.mark.parametrize(
    ("capture", "text", "field"),
    [
        (NONE, KEPT, {}),
        (ALL, KEPT, {"capture": False}),
        (ALL, KEPT, {"canary": "plain"}),
        (ALL, TextConfig(enabled=True), {}),
        (ALL, TextConfig(enabled=True, default="keep", routes={"hr": TextRoute(keep=False)}), {"route": "hr"}),
        (ALL, TextConfig(enabled=True, default="keep", sample_rate=0.0), {}),
    ],
)
def test_what_is_not_to_be_kept_is_not_sent(
    wire: WireConfig, capture: CaptureConfig, text: TextConfig, field: dict[str, Any]
):
    front_end = FrontEnd(capture, wire, text)
    annotate(front_end, sampling_params=Parameters(request_field(**field)))
    assert front_end.texts is not None
    assert front_end.texts._thread is None, "nothing was ever queued"


def test_a_request_whose_field_was_rejected_has_no_known_route_and_no_text(wire: WireConfig):
    front_end = FrontEnd(ALL, wire, KEPT)
    annotate(front_end, sampling_params=Parameters({"headwatch": '{"route": "hr", "unknown": 1}'}))
    assert front_end.texts is not None
    assert front_end.sampled == 1
    assert front_end.texts._thread is None


def test_a_rate_takes_that_share_of_the_sampled_requests(wire: WireConfig):
    front_end = FrontEnd(ALL, wire, TextConfig(enabled=True, default="keep", sample_rate=0.25))
    assert front_end.texts is not None
    for number in range(400):
        annotate(front_end, request_id=f"chatcmpl-{number}")
    assert 60 < front_end.texts._sequence < 140


def test_texts_are_cut_where_the_route_says_with_a_margin(wire: WireConfig, arrived: list[Any]):
    front_end = FrontEnd(ALL, wire, TextConfig(enabled=True, default="keep", max_chars=10))
    annotate(front_end, {"type": "token", "prompt": "a" * 5000})
    wait_for(lambda: bool(arrived), "the text")
    assert (len(arrived[0].text), arrived[0].chars) == (10 + REDACTION_MARGIN, 5000)
    assert front_end.texts is not None
    front_end.texts.stop()


def test_a_sidecar_that_is_away_costs_the_newest_texts_and_the_gap_is_seen(tmp_path: Path, wire: WireConfig):
    front_end = FrontEnd(ALL, wire, KEPT)
    assert front_end.texts is not None
    started = time.monotonic()
    for number in range(QUEUE_TEXTS + 50):
        annotate(front_end, request_id=f"chatcmpl-{number}")
    assert time.monotonic() - started < 10
    dropped = front_end.texts.errors["queue_full"]
    assert dropped >= 40
    frames: list[TextFrame] = []
    receiver = Receiver(wire, WorkerRegistry(), lambda *_: None, texts=frames.append)
    receiver.start()
    try:
        wait_for(lambda: len(frames) == QUEUE_TEXTS + 50 - dropped, "what waited")
        annotate(front_end)
        wait_for(lambda: len(frames) == QUEUE_TEXTS + 51 - dropped, "the next one")
    finally:
        receiver.stop()
    front_end.texts.stop()
    assert frames[-1].sequence - frames[-2].sequence - 1 == dropped


def test_whatever_comes_nothing_raises_and_no_log_shows_a_text(wire: WireConfig, caplog: pytest.LogCaptureFixture):
    class Hostile(dict):  # type: ignore[type-arg] # what it holds does not matter
        def get(self, *_: Any) -> Any:
            raise RuntimeError(SECRET)

    caplog.set_level(logging.DEBUG)
    front_end = FrontEnd(ALL, wire, KEPT)
    assert front_end.texts is not None
    for prompt in (Hostile(), {"prompt": 7}, None, "text", {"type": "enc_dec"}, {"prompt": f"\ud800 {SECRET}"}):
        annotate(front_end, prompt)
    assert front_end.sampled == 6
    assert front_end.texts.errors == {"RuntimeError": 1}
    front_end.texts.stop()
    assert SECRET not in caplog.text


def test_half_a_surrogate_pair_is_replaced(wire: WireConfig, arrived: list[Any]):
    front_end = FrontEnd(ALL, wire, KEPT)
    annotate(front_end, {"prompt": "a \ud800 b"})
    wait_for(lambda: bool(arrived), "the text")
    assert arrived[0].text == "a ? b"
    assert front_end.texts is not None
    front_end.texts.stop()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": "a" * (2**18 + REDACTION_MARGIN + 1), "chars": 2**20}, "text"), ({"chars": 3}, "value"),
        ({"chars": 2**63}, "value"), ({"time_ns": -1}, "value"), ({"time_ns": 2**63}, "value"), ({"sequence": -1}, "value"),
        ({"source": "a" * 1025}, "value"),
    ],
)  # fmt: skip
def test_frames_out_of_bounds_are_rejected_by_reason(
    change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
):
    frames: list[TextFrame] = []
    receiver = Receiver(WireConfig(), WorkerRegistry(), lambda *_: None, texts=frames.append)
    frame = text_frame(SECRET)
    receiver.accept(codec.encode(frame))
    receiver.accept(codec.encode(msgspec.structs.replace(frame, **change)))
    assert receiver.counters == {"text_frames": 1, f"rejected.{reason}": 1}
    assert frames == [frame]
    assert SECRET not in caplog.text


def test_a_sidecar_that_keeps_no_texts_rejects_them(caplog: pytest.LogCaptureFixture):
    receiver = Receiver(WireConfig(), WorkerRegistry(), lambda *_: None)
    receiver.accept(codec.encode(text_frame(SECRET)))
    assert receiver.counters == {"rejected.text_off": 1}
    assert SECRET not in caplog.text
