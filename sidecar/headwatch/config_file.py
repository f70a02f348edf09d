"""Where the configuration comes from: parsed once, with the origin of every value.

Sources, later ones win: defaults, the TOML file named by ``HEADWATCH_CONFIG`` or ``--config``, environment variables
``HEADWATCH_<SECTION>_<KEY>``, overrides given by a command.  Unknown sections, keys and variables are refused with the
nearest known name, so that a typing error never silently means "default".
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import msgspec

from headwatch.addresses import is_loopback
from headwatch.config import LAST_PORT, Config, TextConfig, TextRoute
from headwatch.config.text import BuiltIn
from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import StoreConfig, WireConfig


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where each value that is no default came from (``section.key`` to origin)."""

    config: Config
    origins: dict[str, str]


RESERVED_VARIABLES = frozenset({
    "HEADWATCH_CONFIG", "HEADWATCH_DISABLE", TextConfig().key_env, TextConfig().old_keys_env,
})  # fmt: skip
"""Names that are no settings."""


def load(
    *,
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Return the configuration in force.

    *path* names the TOML file (else ``HEADWATCH_CONFIG``); *environ* stands for the process environment;
    *overrides* maps ``section.key`` to a value and wins over everything.

    Raises:
        ConfigError: The file cannot be read, or a section, key or value is not known.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    path = path or environ.get("HEADWATCH_CONFIG")
    if path:
        for section, table in _read_file(path).items():
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: {section!r} is no section; settings stand in sections such as [capture]")
            for key, value in table.items():
                _check_known(section, key, path)
                values.setdefault(section, {})[key] = value
                origins[f"{section}.{key}"] = f"file {path}"

    for variable, text in sorted(environ.items()):
        if not variable.startswith("HEADWATCH_") or variable in RESERVED_VARIABLES:
            continue
        section, _, key = variable.removeprefix("HEADWATCH_").lower().partition("_")
        _check_known(section, key, f"environment variable {variable}")
        values.setdefault(section, {})[key] = _parse_text(section, key, text, variable)
        origins[f"{section}.{key}"] = f"environment {variable}"

    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        _check_known(section, key, "command line")
        values.setdefault(section, {})[key] = value
        origins[name] = "command line"

    try:
        config = msgspec.convert(values, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    _check_bindings(config)
    _check_keeping(config.store)
    return Loaded(config, origins)


def _check_bindings(config: Config) -> None:
    _check_endpoint(config.wire, "endpoint", config.wire.endpoint)
    _check_endpoint(config.wire, "control_endpoint", config.wire.control_endpoint)
    if config.wire.control_secret_file and config.wire.control_endpoint == config.wire.endpoint:
        raise ConfigError(f"wire.control_endpoint and wire.endpoint are both {config.wire.endpoint!r}; give each its own")
    if not config.http.allow_remote and not is_loopback(config.http.host):
        raise ConfigError(f"http.host {config.http.host!r} leaves loopback and reading has no authentication; set "
                          "http.allow_remote = true if a proxy or network policy stands before it")
    if config.text.enabled and not is_loopback(config.wire.endpoint):
        raise ConfigError(f"text.enabled: wire.endpoint {config.wire.endpoint!r} leaves loopback, and texts cross it neither "
                          "redacted nor encrypted; run a sidecar beside each server, or set text.enabled = false")
    if config.text.enabled and config.wire.endpoint.startswith("ipc://@"):
        raise ConfigError(f"text.enabled: wire.endpoint {config.wire.endpoint!r} is an abstract socket, which no file's rights "
                          "guard: any user of this machine could bind it and be sent texts; give ipc:// a path")
    if config.text.enabled and not config.store.enabled:
        raise ConfigError("text.enabled: texts are kept in the store, and store.enabled is false")
    for route in (TextRoute(), *config.text.routes.values()):
        names = [*get_args(BuiltIn), *(pattern.name for pattern in (*config.text.redact, *route.redact))]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"text.redact: {twice!r} is the name of more than one pattern")


def _check_keeping(store: StoreConfig) -> None:
    if store.row_ttl_days > store.evidence_ttl_days:
        raise ConfigError(f"store.row_ttl_days {store.row_ttl_days} is more than store.evidence_ttl_days "
                          f"{store.evidence_ttl_days}: rows would outlive what tells whose they are, and a purge not find them")


def _check_endpoint(wire: WireConfig, name: str, endpoint: str) -> None:
    if not wire.allow_remote and not is_loopback(endpoint):
        raise ConfigError(f"wire.{name} {endpoint!r} leaves loopback; set wire.allow_remote = true if the network between "
                          "worker and sidecar is yours alone")
    scheme, _, address = endpoint.partition("://")
    port = address.rpartition(":")[2]
    if scheme == "tcp" and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= LAST_PORT):
        raise ConfigError(f"wire.{name} {endpoint!r}: give a port from 1 to {LAST_PORT}, as in tcp://127.0.0.1:9465")


def _read_file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read configuration file {path!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {name: kind for name, kind in get_type_hints(Config).items() if name in Config.__struct_fields__}


def _check_known(section: str, key: str, origin: str) -> None:
    sections = _sections()
    if section not in sections:
        raise ConfigError(f"{origin}: unknown section {section!r}{_nearest(section, sections)}")
    keys = sections[section].__struct_fields__
    if key not in keys:
        raise ConfigError(f"{origin}: unknown key {section}.{key}{_nearest(key, keys)}")


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _parse_text(section: str, key: str, text: str, variable: str) -> Any:
    """Return *text* as the type of ``section.key``: a TOML value, or the bare text where a string is wanted."""
    wanted = get_type_hints(_sections()[section])[key]
    if wanted is str or getattr(wanted, "__origin__", None) is Literal:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"environment variable {variable}: {text!r} is no TOML value") from error


def _explain(error: msgspec.ValidationError, origins: Mapping[str, str]) -> str:
    message, _, where = str(error).partition(" - at `$.")
    name = where.rstrip("`")
    origin = origins.get(name.split("[")[0], "")
    return f"{origin + ': ' if origin else ''}{name or 'configuration'}: {message}"
