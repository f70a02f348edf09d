"""From the configuration to senders: the operator's one route, and the mirrors of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.errors import ConfigError
from headwatch.secret_file import read_secret
from headwatch_exporters.paging.alertmanager import AlertmanagerSender
from headwatch_exporters.paging.grafana import GrafanaSender
from headwatch_exporters.paging.own_rule import OwnRule
from headwatch_exporters.paging.webhook import WebhookSender

if TYPE_CHECKING:
    from headwatch.config import IncidentConfig
    from headwatch_exporters.paging.page import Sender


def senders(config: IncidentConfig) -> tuple[Sender | None, tuple[Sender, ...]]:
    """Return the sender that pages, None where ``incident.route`` is ``none``, and those that mirror it.

    Raises:
        ConfigError: The route has no address, an address is none, a secret cannot be read, or a library is missing.
    """
    made: dict[str, Sender] = {}
    if config.webhook_url:
        secret = _secret("webhook_secret_file", config.webhook_secret_file)
        made["webhook"] = WebhookSender(config.webhook_url, secret, pages=config.route == "webhook")
    if config.alertmanager_url:
        made["alertmanager"] = AlertmanagerSender(config.alertmanager_url, pages=config.route == "alertmanager")
    if config.grafana_url:
        made["grafana"] = GrafanaSender(config.grafana_url, _secret("grafana_token_file", config.grafana_token_file))
    elif config.route == "grafana":
        made["grafana"] = OwnRule("grafana")
    if config.route == "prometheus":
        made["prometheus"] = OwnRule("prometheus")
    if config.route == "none":
        return None, tuple(made.values())
    if config.route not in made:
        raise ConfigError(f"incident.route is {config.route!r}, and incident.{config.route}_url is empty")
    route = made.pop(config.route)
    return route, tuple(made.values())


def _secret(name: str, path: str) -> bytes:
    return read_secret(f"incident.{name}", path) if path else b""
