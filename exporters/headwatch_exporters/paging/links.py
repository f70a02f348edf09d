"""Where a page leads: to the runbook of its class, and to the incident in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from headwatch.console.guard import EVERY_ADDRESS

if TYPE_CHECKING:
    from headwatch.config import Config
    from headwatch.findings import Incident


@dataclass(frozen=True, slots=True)
class Links:
    """What pages of one sidecar have in common."""

    service: str
    """``service.name``."""
    runbooks: str
    consoles: str

    def runbook(self, incident: Incident) -> str:
        """Return the address of the runbook of its class."""
        return f"{self.runbooks}/{incident.verdict.drift_class}.md"

    def console(self, incident: Incident) -> str:
        """Return the address of the incident in the sidecar's API."""
        return f"{self.consoles}/api/v1/incidents/{quote(incident.id, safe='')}"


def links(config: Config) -> Links:
    """Return the links of the sidecar of *config*: to ``incident.console_url``, or else to its own port."""
    host = "127.0.0.1" if config.http.host in EVERY_ADDRESS else config.http.host
    own = f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"
    return Links(config.service.name, config.incident.runbook_url.rstrip("/"), (config.incident.console_url or own).rstrip("/"))
