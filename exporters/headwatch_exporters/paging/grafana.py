"""Incidents as annotations in Grafana: a mark where it began, a region once it is over.

Through grafana-client.  One annotation for each incident, found again by a tag that carries the incident's id, so that a
message that is sent twice changes nothing.  An annotation calls nobody: where ``incident.route`` is ``grafana`` it is
Grafana's own alert rule on the table of incidents that pages (dashboards/grafana/alerting).
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from headwatch.addresses import mask_url
from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.paging import http
from headwatch_exporters.paging.wording import description

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch_exporters.paging.page import Page

TAG = "headwatch"
MAX_TEXT_CHARACTERS = 4000
_MS = 1_000_000


class GrafanaSender:
    """Keeps one annotation for each incident, in the organisation that the token belongs to."""

    name = "grafana"
    refresh_seconds = 0.0

    def __init__(self, url: str, token: bytes) -> None:
        """Prepare the connection; Grafana is first needed by :meth:`send`.

        Raises:
            ConfigError: The URL is none, there is no token, or grafana-client is not installed.
        """
        self._url = http.checked_url("incident.grafana_url", url)
        if not token:
            raise ConfigError("incident.grafana_token_file: annotations need the token of a service account (role Editor)")
        try:
            from grafana_client import GrafanaApi, TokenAuth  # noqa: PLC0415 - only where annotations are wanted
        except ImportError as error:
            raise ConfigError(f"incident.grafana_url needs {error.name}; run: pip install 'headwatch[grafana]'") from error
        parts = urlsplit(self._url)
        path = parts.path.strip("/")
        self._api = GrafanaApi(
            TokenAuth(token.decode("utf-8", "replace")), host=_host(parts.hostname or ""), port=parts.port,
            protocol=parts.scheme, url_path_prefix=f"{path}/" if path else "", timeout=http.TIMEOUT_SECONDS,
        )  # fmt: skip
        self._api.client.s.max_redirects = 0  # a redirect would take the token along

    def send(self, page: Page) -> None:
        """Make the annotation of *page*, or bring it up to date.

        Raises:
            ExportError: Grafana cannot be reached or refuses.
        """
        incident = page.incident
        mark = {
            "time_from": incident.event.since_ns // _MS,
            "time_to": (incident.resolved_ns if incident.state == "resolved" else incident.event.since_ns) // _MS,
            "tags": [TAG, _tag(incident.id), incident.verdict.drift_class, incident.severity],
            "text": text(page),
        }
        try:
            found = self._api.annotations.find_annotations(tags=[quote(_tag(incident.id), safe="")], limit=1)
            if found:
                self._api.annotations.update_annotation(found[0]["id"], **mark)
            else:
                self._api.annotations.add_annotation(**mark)
        except Exception as error:  # of grafana-client and of its transport, which have no common root
            raise ExportError(f"Grafana {mask_url(self._url)}: {type(error).__name__}: {_line(error)}") from error

    def refresh(self, pages: Sequence[Page]) -> None:
        """Do nothing: an annotation stays."""

    def close(self) -> None:
        """Close the connections."""
        self._api.client.s.close()

    def __repr__(self) -> str:
        """Return what it is without its token."""
        return f"GrafanaSender(url={mask_url(self._url)!r})"


def text(page: Page) -> str:
    """Return the text of the annotation: Grafana shows it as HTML, so what others wrote is escaped."""
    told = description(page.incident)[:MAX_TEXT_CHARACTERS].splitlines()
    links = {"runbook": page.runbook_url, "incident": page.console_url}
    return "<br>".join([
        f"<b>{escape(page.title[:MAX_TEXT_CHARACTERS])}</b>",
        *(escape(line) for line in told),
        " · ".join(f'<a href="{escape(url)}">{name}</a>' for name, url in links.items() if url),
    ])


def _tag(incident_id: str) -> str:
    """Return the tag of one incident.

    Grafana takes ``a:b`` as key and value, and a search for ``a`` counts it: under the key :data:`TAG` it would hide the
    annotation from whoever asks for that tag alone (its store.go wants as many hits as tags were asked for).
    """
    return f"incident:{incident_id}"


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _line(error: Exception) -> Any:
    return " ".join(str(error).split())[:500] or "no reason given"
