"""Pages through a real Alertmanager, seen by its own tool and by the receiver that it notifies."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.errors import ExportError
from headwatch.findings import Incident
from headwatch_exporters.paging.alertmanager import HOLD_SECONDS, AlertmanagerSender
from headwatch_exporters.paging.page import Page

from ..peers import alertmanager as start_alertmanager
from ..peers import peer
from ..programs import free_port, running, wait_for
from ..unit.incidents import incident
from ..unit.paging.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..unit.paging.receiver import Receiver

pytestmark = pytest.mark.peer

SECOND = 1_000_000_000
CONFIG = """\
route:
  receiver: people
  group_by: [incident]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
  routes:
    - matchers: ['role="mirror"']
      receiver: nobody
receivers:
  - name: nobody
  - name: people
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


@dataclass
class Alertmanager:
    """A running one, and what it tells people."""

    url: str
    receiver: Receiver
    opened: int = field(default_factory=lambda: time.time_ns() - 5 * SECOND)

    def alerts(self, *matchers: str) -> list[dict]:
        """Return the alerts that amtool lists."""
        command = [peer("amtool"), f"--alertmanager.url={self.url}", "--output=json", "alert", "query", *matchers]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)

    def notified(self, number: int) -> list[tuple[str, str]]:
        """Return status and severity of what people were told of an incident, in order."""
        documents = [json.loads(got.body) for got in self.receiver.received]
        return [
            (document["status"], alert["labels"]["severity"])
            for document in documents for alert in document["alerts"] if alert["labels"]["incident"] == incident(number).id
        ]  # fmt: skip

    def page(self, number: int, kind: str = "opened", **changes: object) -> Page:
        made = incident(number, opened_ns=self.opened, **changes)
        return Page(f"{made.id}-{kind}", kind, "vllm", made, "https://runbooks/retrieval.md", "http://127.0.0.1:9464/i")


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    with receiving() as receiver:
        (folder / "config.yml").write_text(CONFIG.format(url=receiver.url))
        command = [
            *start_alertmanager(), f"--config.file={folder / 'config.yml'}", f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn",
        ]  # fmt: skip
        with running(command, folder / "alertmanager.log", ready):
            yield Alertmanager(url, receiver)


@pytest.fixture
def sender(alertmanager: Alertmanager) -> Iterator[AlertmanagerSender]:
    made = AlertmanagerSender(alertmanager.url)
    yield made
    made.close()


def test_amtool_has_no_complaint_about_the_configuration_that_the_tests_use(tmp_path: Path):
    (tmp_path / "config.yml").write_text(CONFIG.format(url="http://127.0.0.1:1"))
    subprocess.run([peer("amtool"), "check-config", tmp_path / "config.yml"], check=True, capture_output=True, timeout=30)


def test_a_page_is_an_alert_with_few_labels_and_its_runbook(alertmanager: Alertmanager, sender: AlertmanagerSender):
    sender.send(alertmanager.page(1))
    (found,) = alertmanager.alerts(f"incident={incident(1).id}")
    assert found["labels"] == {
        "alertname": "HeadwatchIncident", "incident": "hw-0000000001", "class": "retrieval", "severity": "critical",
        "service": "vllm", "model": "smol", "role": "page",
    }  # fmt: skip
    notes = found["annotations"]
    assert notes["runbook_url"] == "https://runbooks/retrieval.md"
    assert notes["summary"] == "[critical] retrieval: Documents of route support are given and not read."
    assert "layer 0 head 0 lookback -3.0 sd" in notes["description"]
    assert "Documents: doc-1." in notes["description"]
    assert "Requests: chatcmpl-1." in notes["description"]
    assert found["generatorURL"] == "http://127.0.0.1:9464/i"
    wait_for(lambda: alertmanager.notified(1) == [("firing", "critical")], "people to be told")


def test_an_alert_holds_longer_than_it_takes_to_say_it_again(alertmanager: Alertmanager, sender: AlertmanagerSender):
    """It ends by itself a quarter of an hour after the last word; refreshed each minute it does not."""
    sender.refresh([alertmanager.page(2), alertmanager.page(3)])
    ends = {alert["labels"]["incident"]: alert["endsAt"] for alert in alertmanager.alerts("alertname=HeadwatchIncident")}
    assert {incident(2).id, incident(3).id} <= set(ends)
    assert sender.refresh_seconds * 10 < HOLD_SECONDS
    late = AlertmanagerSender(alertmanager.url, clock=lambda: time.time() + 60)
    late.refresh([alertmanager.page(2)])
    late.close()
    (again,) = alertmanager.alerts(f"incident={incident(2).id}")
    assert again["endsAt"] > ends[incident(2).id]


def test_an_alert_that_nobody_renews_is_resolved(alertmanager: Alertmanager):
    """A headwatch that died leaves no page open for ever: here its last word is fourteen minutes and some seconds old."""
    past = AlertmanagerSender(alertmanager.url, clock=lambda: time.time() - HOLD_SECONDS + 3)
    past.send(alertmanager.page(4))
    past.close()
    wait_for(lambda: ("firing", "critical") in alertmanager.notified(4), "people to be told")
    wait_for(lambda: ("resolved", "critical") in alertmanager.notified(4), "the alert to end by itself")


def test_the_same_page_twice_is_one_alert_and_one_notification(alertmanager: Alertmanager, sender: AlertmanagerSender):
    for _ in range(3):
        sender.send(alertmanager.page(5))
    wait_for(lambda: bool(alertmanager.notified(5)), "people to be told")
    time.sleep(1.5)  # longer than the group interval
    assert alertmanager.notified(5) == [("firing", "critical")]
    assert len(alertmanager.alerts(f"incident={incident(5).id}")) == 1


def test_resolving_ends_the_alert_and_reopening_fires_it_again(alertmanager: Alertmanager, sender: AlertmanagerSender):
    sender.send(alertmanager.page(6))
    wait_for(lambda: alertmanager.notified(6) == [("firing", "critical")], "people to be told")
    end = {"state": "resolved", "resolved_ns": time.time_ns()}
    sender.send(alertmanager.page(6, "resolved", **end))
    wait_for(lambda: alertmanager.notified(6)[1:] == [("resolved", "critical")], "people to be told that it is over")
    assert alertmanager.alerts(f"incident={incident(6).id}") == []
    sender.send(alertmanager.page(6))
    wait_for(lambda: alertmanager.notified(6)[2:] == [("firing", "critical")], "people to be told again")


def test_a_new_severity_does_not_leave_the_old_alert_behind(alertmanager: Alertmanager, sender: AlertmanagerSender):
    """Labels are what an alert is: where a verdict changes them the old alert ends in the same request."""
    sender.send(alertmanager.page(7, severity="warning"))
    sender.send(alertmanager.page(7, "updated"))
    (found,) = alertmanager.alerts(f"incident={incident(7).id}")
    assert found["labels"]["severity"] == "critical"


def test_a_mirror_is_shown_and_wakes_nobody(alertmanager: Alertmanager):
    mirror = AlertmanagerSender(alertmanager.url, pages=False)
    mirror.send(alertmanager.page(8))
    mirror.close()
    (found,) = alertmanager.alerts(f"incident={incident(8).id}")
    assert (found["labels"]["role"], found["labels"]["severity"]) == ("mirror", "none")
    assert found["receivers"] == [{"name": "nobody"}]
    time.sleep(1)
    assert alertmanager.notified(8) == []


def test_a_silence_of_alertmanager_silences_it(alertmanager: Alertmanager, sender: AlertmanagerSender):
    """Operators keep their own tools: a silence by incident holds."""
    amtool = [peer("amtool"), f"--alertmanager.url={alertmanager.url}", "silence", "add", "--comment=x", "--author=ada"]
    subprocess.run([*amtool, f"incident={incident(9).id}"], check=True, capture_output=True, timeout=30)
    sender.send(alertmanager.page(9))
    time.sleep(1)
    assert alertmanager.notified(9) == []


def test_hostile_text_is_taken_as_text(alertmanager: Alertmanager, sender: AlertmanagerSender):
    """Names that clients choose may hold anything; what is too long is cut."""
    made = incident(10, opened_ns=alertmanager.opened)
    made = msgspec.structs.replace(made, event=msgspec.structs.replace(made.event, model='a"b\\\n{{ x }}' + "é" * 500))
    sender.send(Page("k", "opened", "vllm", made, "https://r", "http://c"))
    (found,) = alertmanager.alerts(f"incident={made.id}")
    assert found["labels"]["model"].startswith('a"b\\\n{{ x }}é')
    assert len(found["labels"]["model"]) == 200


def test_an_alertmanager_that_refuses_or_is_away_is_an_error(alertmanager: Alertmanager):
    wrong = AlertmanagerSender(f"{alertmanager.url}/nowhere")
    with pytest.raises(ExportError, match=r"Alertmanager .* answered 404"):
        wrong.send(alertmanager.page(11))
    wrong.close()
    bad = AlertmanagerSender(alertmanager.url)
    broken: Incident = incident(11, opened_ns=alertmanager.opened, state="resolved", resolved_ns=SECOND)
    with pytest.raises(ExportError, match="answered 400"):
        bad.send(Page("k", "resolved", "vllm", broken, "", ""))
    bad.close()
    away = AlertmanagerSender("http://127.0.0.1:9")
    with pytest.raises(ExportError, match="ConnectError"):
        away.send(alertmanager.page(11))
    away.close()
