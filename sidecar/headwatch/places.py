"""Where headwatch keeps what outlives a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import Config, StoreConfig

DRIFT_STATE = "drift.db"
"""In the drift folder: baselines and where the evidence stands."""
HISTORY = "history.db"
"""In the drift folder: the windows that were observed."""


def store_url(config: StoreConfig, environ: Mapping[str, str] | None = None) -> str:
    """Return the store's URL, with the default path filled in."""
    if config.url:
        return config.url
    return f"chdb://{state_folder(os.environ if environ is None else environ)}/store"


def spool_folder(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of what is on its way to the store."""
    return Path(config.spool.folder) if config.spool.folder else _beside_store(config, "spool", environ)


def control_state_path(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file in which the sidecar keeps what live control ordered."""
    named = config.wire.control_state_file
    return Path(named) if named else _beside_store(config, "control.json", environ)


def salts_path(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file of the salts with which identifiers are hashed."""
    return Path(config.privacy.salts_file) if config.privacy.salts_file else _beside_store(config, "salts.json", environ)


def drift_folder(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of what drift detection, canaries and incidents keep."""
    return Path(config.drift.folder) if config.drift.folder else _beside_store(config, "drift", environ)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's folder for what headwatch keeps."""
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(state) / "headwatch"


def _beside_store(config: Config, name: str, environ: Mapping[str, str] | None) -> Path:
    """Return the place *name*: ``<store>.<name>`` beside the embedded store, in the user's folder where there is none."""
    environ = os.environ if environ is None else environ
    url = store_url(config.store, environ)
    if config.store.enabled and url.startswith("chdb://"):
        store = Path(url.removeprefix("chdb://"))
        return store.with_name(f"{store.name}.{name}")
    return state_folder(environ) / name
