"""One configuration: what is unknown is refused, and every value tells where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwatch.addresses import is_loopback, mask_url
from headwatch.cli.config import settings
from headwatch.config import Config, RouteConfig, StoreConfig
from headwatch.config_file import load
from headwatch.errors import ConfigError
from headwatch.places import control_state_path, store_url


def write(path: Path, text: str) -> str:
    file = path / "headwatch.toml"
    file.write_text(text)
    return str(file)


def test_without_any_source_everything_is_default():
    loaded = load(environ={})
    assert loaded.config == Config()
    assert loaded.origins == {}


def test_later_sources_win_and_every_value_names_its_own(tmp_path: Path):
    """Defaults, then the file, then variables, then overrides of a command."""
    path = write(tmp_path, "[capture]\nsample_rate = 0.2\nstep_stride = 3\n[http]\nport = 1000\n")
    environ = {"HEADWATCH_CAPTURE_STEP_STRIDE": "5", "HEADWATCH_HTTP_PORT": "2000", "HEADWATCH_CONFIG": path, "PATH": "/bin"}
    loaded = load(environ=environ, overrides={"http.port": 3000})
    assert (loaded.config.capture.sample_rate, loaded.config.capture.step_stride, loaded.config.http.port) == (0.2, 5, 3000)
    assert loaded.origins == {
        "capture.sample_rate": f"file {path}",
        "capture.step_stride": "environment HEADWATCH_CAPTURE_STEP_STRIDE",
        "http.port": "command line",
    }


def test_the_named_file_wins_over_the_one_of_the_environment(tmp_path: Path):
    path = write(tmp_path, "[service]\nname = 'named'\n")
    assert load(path=path, environ={"HEADWATCH_CONFIG": "/nowhere"}).config.service.name == "named"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[capture]\nsample_rat = 0.5", r"unknown key capture\.sample_rat; did you mean 'sample_rate'\?"),
        ("[captur]\nsample_rate = 0.5", r"unknown section 'captur'; did you mean 'capture'\?"),
        ("[zzz]\nx = 1", r"unknown section 'zzz'; known: audit, canary, "),
        ("sample_rate = 0.5", r"'sample_rate' is no section"),
        ("[capture]\nsample_rate = 1.5", r"file .*: capture\.sample_rate: Expected `float` <= 1\.0"),
        ("[capture]\nsample_rate = 'all'", r"capture\.sample_rate: Expected `float`, got `str`"),
        ("[capture.routes.hr]\nsample_rate = 2", r"file .*: capture\.routes\[\.\.\.\]\.sample_rate: Expected `float` <= 1\.0"),
        ("[capture.routes.hr]\nsample_rat = 1", r"capture\.routes\[\.\.\.\]: Object contains unknown field `sample_rat`"),
        ("[capture]\nlayers = [1, 'two']", r"file .*: capture\.layers\[1\]: Expected `int`, got `str`"),
        ("[capture]\nmarkers = [{kind='document', start='<', ende='>'}]", r"ende"),
        ("[otlp]\nprotocol = 'carrier pigeon'", r"otlp\.protocol: Invalid enum value"),
        ("[capture\n", r"not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_error(tmp_path: Path, text: str, message: str):
    """The error names the file and the key, so that nobody searches; nothing silently means "default"."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        load(path=path, environ={})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("HEADWATCH_CAPTURE_SAMPLE_RATTE", "1", r"variable HEADWATCH_CAPTURE_SAMPLE_RATTE: unknown key .*'sample_rate'"),
        ("HEADWATCH_DISABEL", "1", r"variable HEADWATCH_DISABEL: unknown section 'disabel'"),
        ("HEADWATCH_HTTP_PORT", "high", r"variable HEADWATCH_HTTP_PORT: 'high' is no TOML value"),
        ("HEADWATCH_HTTP_PORT", "70000", r"environment HEADWATCH_HTTP_PORT: http\.port: Expected `int` <= 65535"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(variable: str, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(environ={variable: text})


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("HEADWATCH_CAPTURE_LAYERS", "[0, 14]", "capture", "layers", (0, 14)),
        ("HEADWATCH_CAPTURE_ENABLED", "false", "capture", "enabled", False),
        ("HEADWATCH_SERVICE_NAME", "1.0", "service", "name", "1.0"),
        ("HEADWATCH_OTLP_PROTOCOL", "http", "otlp", "protocol", "http"),
        ("HEADWATCH_WINDOW_SECONDS", "2.5", "window", "seconds", 2.5),
        ("HEADWATCH_WINDOW_SECONDS", "2", "window", "seconds", 2.0),
    ],
)
def test_variables_are_read_by_the_type_of_their_setting(variable: str, text: str, section: str, key: str, value: object):
    loaded = load(environ={variable: text})
    assert getattr(getattr(loaded.config, section), key) == value


def test_the_plugins_own_variables_are_no_settings():
    assert load(environ={"HEADWATCH_DISABLE": "1"}).origins == {}


def test_an_unreadable_file_says_why():
    with pytest.raises(ConfigError, match=r"'/no/such/file': No such file"):
        load(path="/no/such/file", environ={})


def test_routes_are_tables_of_the_file_or_one_toml_value_of_a_variable(tmp_path: Path):
    path = write(tmp_path, "[capture.routes.hr]\nsample_rate = 1.0\n[capture.routes.'help desk']\ndetail = 0\n")
    wanted = {"hr": RouteConfig(sample_rate=1.0), "help desk": RouteConfig(detail=0)}
    assert load(path=path, environ={}).config.capture.routes == wanted
    text = "{hr = {sample_rate = 1.0}, 'help desk' = {detail = 0}}"
    assert load(environ={"HEADWATCH_CAPTURE_ROUTES": text}).config.capture.routes == wanted


def test_live_control_has_a_place_of_its_own_on_the_wire():
    same = {"wire.control_endpoint": "tcp://127.0.0.1:9465", "wire.control_secret_file": "/etc/headwatch/secret"}
    with pytest.raises(ConfigError, match=r"wire\.control_endpoint and wire\.endpoint are both 'tcp://127\.0\.0\.1:9465'"):
        load(environ={}, overrides=same)


def test_what_live_control_ordered_lies_beside_the_store_or_in_the_users_state():
    def path(**settings: str | bool) -> str:
        overrides = {name.replace("__", "."): value for name, value in settings.items()}
        return str(control_state_path(load(environ={}, overrides=overrides).config, {"HOME": "/home/u"}))

    assert path() == "/home/u/.local/state/headwatch/store.control.json"
    assert path(store__url="chdb:///data/mine") == "/data/mine.control.json"
    assert path(store__url="http://ch:8123/db") == path(store__enabled=False) == "/home/u/.local/state/headwatch/control.json"
    assert path(wire__control_state_file="/x/y.json") == "/x/y.json"


@pytest.mark.parametrize("name", ["wire.endpoint", "wire.control_endpoint", "http.host"])
def test_leaving_loopback_is_refused_unless_it_is_said_twice(name: str):
    """A port without authentication is not opened to a network by one setting."""
    value = "tcp://0.0.0.0:9999" if name.startswith("wire") else "0.0.0.0"
    section = name.partition(".")[0]
    with pytest.raises(ConfigError, match=rf"{name}.*leaves loopback.*{section}\.allow_remote = true"):
        load(environ={}, overrides={name: value})
    load(environ={}, overrides={name: value, f"{section}.allow_remote": True})


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("tcp://127.0.0.1:9465", True),
        ("tcp://[::1]:9465", True),
        ("ipc:///run/headwatch/wire", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("tcp://*:9465", False),
        ("tcp://eth0:9465", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("tcp://127.example.org:9465", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(address: str, loopback: bool):
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://user:secret@host:8123/db", "http://user:***@host:8123/db"),
        ("http://user:se@cr:et@host:8123/db", "http://user:***@host:8123/db"),
        ("http://user@host/db", "http://user@host/db"),
        ("http://host/db?user=u&password=secret&secure=1", "http://host/db?user=u&password=***&secure=1"),
        ("chdb:///var/lib/headwatch", "chdb:///var/lib/headwatch"),
    ],
)
def test_passwords_in_addresses_are_masked(url: str, masked: str):
    assert mask_url(url) == masked


def test_a_password_shows_neither_in_repr_nor_in_config_show():
    url = "https://headwatch:hunter2@clickhouse.example.org:8443/observability"
    loaded = load(environ={"HEADWATCH_STORE_URL": url, "HEADWATCH_OTLP_ENDPOINT": "http://u:hunter2@otel:4317"})
    shown = settings(loaded)
    assert "hunter2" not in repr(loaded) + str(loaded.config) + repr(shown)
    assert shown["store.url"] == {
        "value": "https://headwatch:***@clickhouse.example.org:8443/observability",
        "origin": "environment HEADWATCH_STORE_URL",
    }
    assert loaded.config.store.url == url


def test_the_default_store_lies_in_the_users_state():
    assert store_url(StoreConfig(), {"XDG_STATE_HOME": "/state"}) == "chdb:///state/headwatch/store"
    assert store_url(StoreConfig(), {"HOME": "/home/u"}) == "chdb:///home/u/.local/state/headwatch/store"
    assert store_url(StoreConfig(url="chdb:///x"), {}) == "chdb:///x"


@pytest.mark.parametrize("name", ["endpoint", "control_endpoint"])
@pytest.mark.parametrize("port", ["99999", "0", "", "http", "12x", "1234567"])
def test_a_wire_endpoint_without_a_possible_port_is_refused(name: str, port: str):
    """ZeroMQ would take some of them and listen elsewhere."""
    with pytest.raises(ConfigError, match=rf"wire\.{name} .* give a port from 1 to 65535"):
        load(environ={}, overrides={f"wire.{name}": f"tcp://127.0.0.1:{port}"})


def test_rows_may_not_outlive_what_tells_whose_they_are() -> None:
    with pytest.raises(ConfigError, match=r"store\.row_ttl_days 31 is more than store\.evidence_ttl_days 30"):
        load(environ={}, overrides={"store.row_ttl_days": 31})
    assert load(environ={}, overrides={"store.row_ttl_days": 30}).config.store.row_ttl_days == 30
