"""The demo's figures and report, from what a sidecar answers over HTTP."""

from __future__ import annotations

import json
import random
import re
import threading
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import pytest
from rich.console import Console

from headwatch.demo.api import SidecarApi
from headwatch.demo.prompts import PHASES
from headwatch.demo.readback import dropped_frames, read_result, read_states, wait_for_requests
from headwatch.demo.report import (
    HEALTHY,
    WRONG,
    HeadTable,
    ReportData,
    read_requests,
    render_report,
    verdict,
    worst_heads,
)
from headwatch.demo.servers import Addresses, Control, config_text
from headwatch.demo.summary import curl_example, print_result
from headwatch.demo.timeline import Point, timeline
from headwatch.errors import CommandError
from headwatch.pictures.colours import diverging, viridis
from headwatch.pictures.figures import ticks_between
from headwatch.secret_file import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYERS, HEADS, REQUESTS = 30, 9, 42
HOSTILE = "chatcmpl-<script>alert(1)</script>"
METRICS = """# HELP headwatch_ingest_head_summaries_total Head summaries aggregated.
# TYPE headwatch_ingest_head_summaries_total counter
headwatch_ingest_head_summaries_total 712800.0
headwatch_capture_up{gen_ai_request_model="m",headwatch_rank="0"} 1.0
headwatch_exporter_up{headwatch_exporter="clickhouse 1"} 1.0
python_info{version="3.11"} 1.0
"""


def lookback(phase: str) -> list[list[float | None]]:
    source = random.Random(1)
    shift = 0.0 if phase == HEALTHY else -0.08
    table = [[min(max(source.betavariate(2, 2) + shift * source.random() * 2, 0.0), 1.0) for _ in range(HEADS)]
             for _ in range(LAYERS)]
    table[0][0] = None
    return table


def arm(name: str, first_s: int) -> dict[str, object]:
    measured = {"healthy": (0.62, [0.60, 0.64]), "wrong_documents": (0.48, [0.46, 0.50])}
    mean, interval = measured.get(name, (None, None))
    absent = name == "retrieval_down"
    return {
        "arm": name, "requests": REQUESTS, "measured": 0 if absent else REQUESTS, "absent": REQUESTS if absent else 0,
        "unresolved": 0, "sampled_rows": 1008, "grounding_ratio_mean": mean and mean - 0.1,
        "grounding_ratio_ci95": interval and [value - 0.1 for value in interval],
        "grounding_ratio_retrieval_heads_mean": mean, "grounding_ratio_retrieval_heads_ci95": interval,
        "document_mass_mean": None if absent else 0.31, "first_time_ns": first_s * 10**9,
        "last_time_ns": (first_s + 60) * 10**9,
    }  # fmt: skip


def request_rows(name: str, first_s: int) -> list[dict[str, object]]:
    source = random.Random(name)
    mean = {"healthy": 0.62, "wrong_documents": 0.48}.get(name)
    return [
        {"time_ns": int((first_s + 1.4 * n) * 1e9), "arm": name, "route": "support",
         "request_id": HOSTILE if n == 0 else f"chatcmpl-{name}-{n}", "state": "absent" if mean is None else "measured",
         "grounding_ratio": mean and source.gauss(mean - 0.1, 0.03),
         "grounding_ratio_retrieval_heads": mean and source.gauss(mean, 0.05)}
        for n in range(REQUESTS)
    ]  # fmt: skip


INCIDENTS = [
    {"id": "hw-2", "paged": False, "event": {"time_ns": 100 * 10**9, "evidence": []}},
    {
        "id": "hw-1", "paged": True,
        "verdict": {"drift_class": "retrieval", "cause": "wrong_documents", "sentence": "read less", "confidence": 0.9},
        "event": {"time_ns": 64 * 10**9 + 14 * 10**9, "evidence": [
            {"heads": [{"layer": 5, "head": 2}, {"layer": 5, "head": 2}, {"layer": 11, "head": 7}]}, {"heads": []},
        ]},
        "exhibits": {"documents": [{"id": "hr-12"}], "requests": [{"request_id": "chatcmpl-1"}]},
    },
]  # fmt: skip
STARTS = {"healthy": 0, "wrong_documents": 64, "retrieval_down": 128}
STATUS = {
    "workers": [{"frames_missing": 0, "status": {"counters": {"frames_dropped": 0}}}],
    "exporters": {"clickhouse": {"queue_batches": 0}},
}


class MadeUpSidecar(BaseHTTPRequestHandler):
    """Answers as a sidecar that has seen all three phases."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/metrics":
            self.answer(METRICS.encode())
            return
        answers = {
            "/api/v1/arms": lambda: [arm(name, first) for name, first in STARTS.items()],
            "/api/v1/counts": lambda: {"otel_rows": 4711, "requests": 126, "documents": 252, "request_heads": 34020,
                                       "sampled_rows": 2640},
            "/api/v1/status": lambda: STATUS,
            "/api/v1/incidents": lambda: INCIDENTS,
            "/api/v1/requests": lambda: request_rows(query["arm"], STARTS[query["arm"]]) if query["arm"] in STARTS else [],
            "/api/v1/heads": lambda: {"feature": query["feature"], "layers": list(range(LAYERS)), "heads": HEADS,
                                      "mean": lookback(query["arm"]), "sd": [[0.06] * HEADS] * LAYERS, "requests": 42},
        }  # fmt: skip
        if url.path in answers:
            self.answer(json.dumps(answers[url.path]()).encode())
        else:
            self.send_error(404)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def api() -> Iterator[SidecarApi]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), MadeUpSidecar)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with SidecarApi(f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def page(api: SidecarApi) -> str:
    phases = list(PHASES)
    return render_report(ReportData(
        result=read_result(api, phases),
        states=read_states(api, phases),
        healthy=HeadTable.read(api, HEALTHY),
        wrong=HeadTable.read(api, WRONG),
        requests=read_requests(api, phases),
        retrieval_heads=frozenset({(5, 2), (11, 7), (20, 0)}),
        examples=[("healthy", "How long does it run?", "<b>Nineteen</b> days.")],
        about={"model": "made up"},
    ))


def test_result_has_the_promised_keys_and_reads_them_from_the_sidecar(api: SidecarApi):
    """`--json` writes exactly these keys."""
    result = json.loads(msgspec.json.encode(read_result(api, list(PHASES))))
    phases, incidents = result.pop("phases"), result.pop("incidents")
    assert result == {"requests": 126, "sampled_rows": 2640, "head_summaries": 712800, "dropped_frames": 0,
                      "otel_rows": 4711, "prometheus_samples": 3}
    assert [phase["name"] for phase in phases] == ["healthy", "wrong_documents", "retrieval_down"]
    assert phases[0] == {"name": "healthy", "requests": 42, "grounding_ratio_mean": 0.52,
                         "grounding_ratio_ci95": [0.5, 0.54], "document_mass_mean": 0.31,
                         "grounding_ratio_retrieval_heads_mean": 0.62,
                         "grounding_ratio_retrieval_heads_ci95": [0.6, 0.64]}
    assert [incident["class"] for incident in incidents] == ["retrieval"], "what does not page is left out"
    assert (incidents[0]["phase"], incidents[0]["heads"], incidents[0]["documents"], incidents[0]["requests"]) == (
        "wrong_documents", [[5, 2], [11, 7]], ["hr-12"], ["chatcmpl-1"]
    )


def test_absent_documents_are_null_and_not_zero(api: SidecarApi):
    """A phase without documents has no ratio, no mass and no interval."""
    down = read_result(api, list(PHASES)).phases[2]
    assert down.requests == 42
    assert msgspec.structs.astuple(down)[2:] == (None,) * 5
    assert read_states(api, list(PHASES))["retrieval_down"].absent == 42


def test_unknown_phase_has_no_requests(api: SidecarApi):
    """What the store does not know is not made up."""
    assert read_result(api, ["nothing"]).phases[0].requests == 0


def test_missing_requests_are_named(api: SidecarApi):
    """Waiting ends with what is missing, arm by arm."""
    seen: list[int] = []
    with pytest.raises(CommandError, match="3 of healthy"):
        wait_for_requests(api, {"healthy": 45, "wrong_documents": 42}, seen.append, timeout_seconds=0.1)
    assert seen[-1] == 84


def test_sidecar_errors_are_one_clear_line(api: SidecarApi):
    """An unknown address, and nobody at the address."""
    with pytest.raises(CommandError, match="answered 404 to /api/v1/nothing"):
        api.get("nothing")
    with SidecarApi("http://127.0.0.1:9") as nobody, pytest.raises(CommandError, match="cannot be reached"):
        nobody.get("arms")


def test_dropped_frames_count_a_loss_once():
    """A dropped frame also leaves a gap; a gap that no later frame has shown yet still counts."""
    def worker(missing: int, dropped: int) -> dict[str, object]:
        return {"frames_missing": missing, "status": {"counters": {"frames_dropped": dropped}}}

    assert dropped_frames({"workers": [worker(3, 3), worker(0, 2), worker(1, 0)]}) == 6
    assert dropped_frames({"workers": []}) == 0


def test_report_needs_nothing_else(page: str):
    """No script, no style sheet, image or font from elsewhere."""
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\(", page)
    assert set(re.findall(r'(?:https?:)?//[^\s"<]+', page)) == {"http://www.w3.org/2000/svg"}


def test_report_escapes_what_comes_from_outside(page: str):
    """Request ids are the client's; answers are the model's."""
    assert "&lt;b&gt;Nineteen" in page
    assert "&lt;script&gt;alert" in page


def test_report_pictures_are_well_formed_and_complete(page: str):
    """Three heatmaps with a cell for every head, two keys, and a timeline with a mark for every request."""
    pictures = [ET.fromstring(text) for text in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]
    tag = "{http://www.w3.org/2000/svg}"
    titles = [picture.find(f"{tag}title").text for picture in pictures]
    heatmaps = [pictures[titles.index(name)] for name in ("right documents", "wrong documents", "right minus wrong")]
    for picture in heatmaps:
        cells = [cell for cell in picture.findall(f"{tag}rect") if cell.get("class") != "mark"]
        assert len(cells) == LAYERS * HEADS
        assert len(picture.findall(f"{tag}rect[@class='mark']")) == 3
    times = [picture for picture, title in zip(pictures, titles, strict=True) if title.startswith("Grounding ratio")]
    assert len(times) == 2
    for picture in times:
        assert len(picture.findall(f"{tag}circle")) == 2 * REQUESTS
        marks = [cell for cell in picture.findall(f"{tag}rect") if cell.find(f"{tag}title") is not None]
        assert len(marks) == REQUESTS


def test_same_number_has_the_same_colour_in_both_heatmaps(page: str):
    """Right and wrong documents are compared on one scale."""
    colours: dict[str, set[str]] = {}
    pictures = [text for text in re.findall(r"<svg .*?</svg>", page, re.DOTALL) if "minus" not in text]
    for picture in pictures:
        for fill, value in re.findall(r'fill="(#\w+)"><title>layer \d+, head \d+: (\d\.\d+)', picture):
            colours.setdefault(value, set()).add(fill)
    assert len(colours) > 100
    channels = [np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in found]) for found in colours.values()]
    assert max(int(np.ptp(values, axis=0).max()) for values in channels) <= 2  # what rounding to three decimals hides


def test_scales_are_monotone_in_lightness():
    """Viridis grows lighter throughout, so that it can be read without any colour vision."""
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ramp = [lightness(viridis(step / 50)) for step in range(51)]
    assert ramp == sorted(ramp)
    assert viridis(-1) == viridis(0)
    assert viridis(2) == viridis(1)
    assert lightness(diverging(0.5)) > max(lightness(diverging(0)), lightness(diverging(1)))


def test_verdict_says_whether_the_intervals_overlap(api: SidecarApi):
    """The sentence follows the numbers, whichever way they fall."""
    result = read_result(api, list(PHASES))
    assert "over the retrieval heads and over all heads" in verdict(result)
    same = msgspec.structs.replace(result, phases=[msgspec.structs.replace(result.phases[0], name=n) for n in PHASES])
    assert "overlap" in verdict(same)
    assert "not overlap" not in verdict(same)


def test_worst_heads_are_those_that_fell_furthest():
    """Ranked by standard deviations; heads undefined on either side are left out."""
    healthy = HeadTable([3, 4], [[0.9, 0.8], [None, 0.7]], [[0.1, 0.1], [None, 0.1]])
    wrong = HeadTable([3, 4], [[0.8, 0.3], [0.1, 0.75]], [[0.1, 0.1], [0.1, 0.1]])
    found = worst_heads(healthy, wrong, frozenset({(3, 1)}))
    assert [(item.layer, item.head, item.retrieval) for item in found] == [(3, 1, True), (3, 0, False), (4, 1, False)]
    assert found[0].effect == pytest.approx(-5.0)


def test_timeline_survives_one_request_and_none():
    """An interrupted run still draws."""
    for points in ([], [Point(5, 0.5, "healthy", "x")], [Point(5, None, "healthy", "x")]):
        ET.fromstring(timeline("t", points, {"healthy": "#000000"}))


@pytest.mark.parametrize("high", [0.0031, 0.1, 0.26, 0.405, 0.5, 0.96, 1.0, 7.3, 152.0])
@pytest.mark.parametrize("about", [2, 4, 8])
def test_ticks_are_round_and_cover_the_axis(high: float, about: int):
    """An axis from 0 always gets a second tick, in the upper half or near it, and not many more than asked for."""
    ticks = ticks_between(0.0, high, about)
    assert ticks[0] == 0
    assert 0.4 * high <= ticks[-1] <= high
    assert 2 <= len(ticks) <= 2 * about + 1


def test_configuration_of_the_pair_is_read_by_both(tmp_path: Path):
    """The file that the demo writes is a valid configuration, with every request sampled."""
    from headwatch.config_file import load

    addresses = Addresses.free()
    head_map = tmp_path / 'odd "name".json'
    control = Control.made(tmp_path)
    assert Control.made(tmp_path) == control
    (tmp_path / "headwatch.toml").write_text(config_text(addresses, tmp_path / "store", head_map, control))
    config = load(path=str(tmp_path / "headwatch.toml"), environ={}).config
    assert config.wire.control_endpoint == addresses.control
    assert read_secret("wire.control_secret_file", config.wire.control_secret_file)
    assert read_secret("http.token_file", config.http.token_file)
    assert (config.capture.sample_rate, config.capture.step_stride) == (1.0, 1)
    assert config.wire.endpoint == addresses.wire
    assert config.http.port == int(addresses.sidecar.rpartition(":")[2])
    assert config.store.url == f"chdb://{tmp_path}/store"
    assert config.grounding.head_map == str(head_map)


def test_table_says_none_where_nothing_was_measured(api: SidecarApi, capsys: pytest.CaptureFixture[str]):
    """The phase without documents shows no number."""
    print_result(read_result(api, list(PHASES)), Console(width=140, no_color=True))
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "retrieval down" in line)
    assert row.count("none") == 3
    assert not re.search(r"0\.\d", row)
    assert "712,800 head summaries" in printed


def test_curl_example_is_a_request_that_names_its_document():
    """What the demo invites the user to type carries the field, and its document stands in the prompt."""
    import shlex

    words = shlex.split(curl_example(Addresses("http://127.0.0.1:1", "http://127.0.0.1:2", "tcp://127.0.0.1:3")))
    body = json.loads(words[words.index("-d") + 1])
    document = json.loads(body["vllm_xargs"]["headwatch"])["documents"][0]
    assert document["text"] in body["messages"][0]["content"]
