"""Pages as alerts of an Alertmanager (API v2): it groups, silences, and knows who is on call.

An alert is its labels, so they are few, bounded, and the same for the whole life of an incident: the incident's id, class,
severity, service, model and role.  What changes stands in annotations.  An open alert ends by itself
:data:`HOLD_SECONDS` after it was last sent and is sent again each :data:`REFRESH_SECONDS`, as Prometheus does: where
headwatch dies its pages do not stay open for ever.  Sending the same alert twice is one alert.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from headwatch_exporters.paging import http
from headwatch_exporters.paging.wording import description

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch_exporters.paging.page import Page

    Alert: TypeAlias = dict[str, str | dict[str, str]]

ALERT_NAME = "HeadwatchIncident"
REFRESH_SECONDS = 60.0
HOLD_SECONDS = 900.0
MAX_LABEL_CHARACTERS = 200
MAX_ANNOTATION_CHARACTERS = 2000
_MAX_KNOWN = 256


class AlertmanagerSender:
    """Keeps one alert for each incident.

    A mirror (*pages* false) has role ``mirror`` and severity ``none``, which the usual routing trees send nowhere.
    """

    name = "alertmanager"
    refresh_seconds = REFRESH_SECONDS

    def __init__(self, url: str, *, pages: bool = True, clock: Callable[[], float] = time.time) -> None:
        """Prepare the connection; the Alertmanager is first needed by :meth:`send`.

        Raises:
            ConfigError: The URL is none.
        """
        self._url = http.checked_url("incident.alertmanager_url", url) + "/api/v2/alerts"
        self._pages = pages
        self._clock = clock
        self._client = http.client(http.TIMEOUT_SECONDS)
        self._known: dict[str, Alert] = {}

    def send(self, page: Page) -> None:
        """Post the alert of *page*.

        Raises:
            ExportError: The Alertmanager cannot be reached or refuses.
        """
        self.refresh([page])

    def refresh(self, pages: Sequence[Page]) -> None:
        """Post the alerts of *pages*, all in one request; one whose labels changed is ended under its old ones.

        Raises:
            ExportError: The Alertmanager cannot be reached or refuses.
        """
        if not pages:
            return
        now = self._clock()
        alerts = {page.incident.id: alert(page, now, pages=self._pages) for page in pages}
        moved = [
            {**known, "endsAt": _time(now)}
            for name, now_sent in alerts.items()
            if (known := self._known.get(name)) is not None and known["labels"] != now_sent["labels"]
        ]
        http.post(self._client, self._url, msgspec.json.encode([*moved, *alerts.values()]), {}, "Alertmanager")
        for page in pages:
            self._known.pop(page.incident.id, None)
            if page.incident.state != "resolved":
                self._known[page.incident.id] = alerts[page.incident.id]
        while len(self._known) > _MAX_KNOWN:
            self._known.pop(next(iter(self._known)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def alert(page: Page, now: float, *, pages: bool = True) -> Alert:
    """Return the alert of *page* as it is sent at *now* (seconds since 1970)."""
    incident = page.incident
    ended = incident.state == "resolved"
    labels = {
        "alertname": ALERT_NAME,
        "incident": incident.id,
        "class": incident.verdict.drift_class,
        "severity": incident.severity if pages else "none",
        "service": page.service,
        "model": incident.event.model,
        "role": "page" if pages else "mirror",
    }
    annotations = {
        "summary": page.title,
        "description": description(incident),
        "state": incident.state,
        "acknowledged_by": incident.acknowledged_by,
        "runbook_url": page.runbook_url,
        "console_url": page.console_url,
    }
    return {
        "labels": _bounded(labels, MAX_LABEL_CHARACTERS),
        "annotations": _bounded(annotations, MAX_ANNOTATION_CHARACTERS),
        "startsAt": _time(incident.opened_ns / 1e9),
        "endsAt": _time(incident.resolved_ns / 1e9 if ended else now + HOLD_SECONDS),
        "generatorURL": page.console_url,
    }


def _bounded(values: dict[str, str], characters: int) -> dict[str, str]:
    return {name: value[:characters] for name, value in values.items() if value}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
