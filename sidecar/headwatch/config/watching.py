"""Drift, canaries, and how a person is told."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headwatch.addresses import mask_url
from headwatch.config.kinds import Positive, RouteName, Seconds


class DriftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How drift is detected.  One promise for everything: the mean time between false alarms."""

    enabled: bool = True
    shadow: bool = False
    """Detect and record what would have paged; open no incident that pages."""
    shadow_families: tuple[str, ...] = ()
    """Families that are judged on a clock of their own, recorded, and page nobody."""
    false_alarm_days: Annotated[float, msgspec.Meta(gt=0.0)] = 30.0
    """The promised mean time between false alarms of this sidecar, all strata, features and families together."""
    interval_windows: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """The same promise in windows, for windows that close by count; 0: from *false_alarm_days* and the window's length."""
    min_baseline_windows: Positive = 1440
    """No page against a shorter baseline (default: one day of windows of a minute)."""
    max_baseline_windows: Positive = 10080
    learning_lag_windows: Annotated[int, msgspec.Meta(ge=0)] = 120
    """A baseline never learns from the latest windows: drift that is not yet found must not become normal."""
    min_stratum_rows: Annotated[float, msgspec.Meta(ge=0.0)] = 4.0
    """A stratum with fewer rows a window in its baseline (the median) is pooled with the others of its model and phase."""
    family_weights: dict[str, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights on the one clock, by family; what is not named keeps its default."""
    route_weights: dict[RouteName, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights of strata and scopes by their route; what is not named has 1."""
    feature_weights: dict[str, Annotated[float, msgspec.Meta(ge=0.0)]] = {}
    """Weights of features and signals; what is not named has 1."""
    resolve_windows: Positive = 5
    """Effects must be back inside for so many windows before an incident resolves by itself."""
    folder: str = ""
    """Where state, history, baselines and incidents are kept; empty: beside the embedded store, ``<store>.drift``."""
    history_bytes: Positive = 2 * 1024 * 1024 * 1024
    """Windows kept for learning and backtests; the oldest make room."""
    history_days: Positive = 400
    """How old a window may become in any case: its examples name requests, documents and users."""


class CanaryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fixed prompts through the server's own endpoint."""

    endpoint: str = ""
    """``http://127.0.0.1:8000``, the OpenAI server to ask; empty: no canaries are sent."""
    model: str = ""
    """Served model name; empty: the first one that the server lists."""
    interval_seconds: Seconds = 300.0
    timeout_seconds: Seconds = 30.0
    api_key_file: str = ""
    """File (0600) with the server's API key; empty: none is sent."""
    allow_remote: bool = False
    """Whether *endpoint* may leave loopback."""
    fingerprint: str = ""
    """Fingerprint that runs are held against; empty: the one pinned in the drift folder."""
    prompts: str = ""
    """TOML file of one's own prompts; empty: headwatch's."""


class IncidentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a person is told."""

    route: Literal["none", "webhook", "alertmanager", "grafana", "prometheus"] = "none"
    """The one route that pages; the others mirror it where they are configured.  Prometheus pages by its own rule."""
    webhook_url: str = ""
    webhook_secret_file: str = ""
    """File (0600) with the secret of the webhook's HMAC."""
    alertmanager_url: str = ""
    grafana_url: str = ""
    grafana_token_file: str = ""
    runbook_url: str = "https://github.com/headwatch/headwatch/blob/main/docs/runbooks"
    """Where runbooks are read; ``/<class>.md`` is added."""
    console_url: str = ""
    """Where those who are paged reach the sidecar's HTTP port, for links; empty: as it is bound."""
    reopen_seconds: Seconds = 3600.0
    """Evidence of the same cause within so long after it was resolved reopens an incident instead of opening another."""
    retry_seconds: Seconds = 5.0
    """First pause between attempts to send a page; doubled each time, with jitter."""

    def __repr__(self) -> str:
        """Return the fields with passwords masked."""
        urls = ", ".join(f"{name}={mask_url(getattr(self, name))!r}"
                         for name in ("webhook_url", "alertmanager_url", "grafana_url"))
        return f"IncidentConfig(route={self.route!r}, {urls}, reopen_seconds={self.reopen_seconds})"
