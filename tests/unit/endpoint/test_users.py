"""Who may read through the ClickHouse endpoint."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.config import ClickHouseUser, Config
from headwatch.config_file import load
from headwatch.errors import ConfigError
from headwatch_exporters.clickhouse.http.refusal import QueryError
from headwatch_exporters.clickhouse.http.users import ANYBODY, Users

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret-é-" + "x" * 20


@pytest.fixture
def user(tmp_path: Path) -> ClickHouseUser:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return ClickHouseUser(name="grafana", secret_file=str(path), services=("a",))


def basic(name: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def test_on_loopback_without_users_everybody_reads_and_elsewhere_nobody():
    assert Users((), everybody=True).admit({}, {}).name == ANYBODY
    assert Users((), everybody=True).admit(basic("x", "y"), {"user": "z"}).name == ANYBODY
    for headers in ({}, basic("default", "")):
        with pytest.raises(QueryError) as refused:
            Users((), everybody=False).admit(headers, {})
        assert refused.value.status in {401, 403}


def test_where_there_are_users_loopback_is_no_way_in(user: ClickHouseUser):
    users = Users((user,), everybody=True)
    with pytest.raises(QueryError, match="a user has to be given"):
        users.admit({}, {})
    reader = users.admit(basic("grafana", SECRET), {})
    assert (reader.name, reader.services, reader.routes) == ("grafana", ("a",), ())


@pytest.mark.parametrize(
    "headers",
    [
        basic("grafana", ""), basic("", SECRET), basic("Grafana", SECRET), basic("grafana", SECRET + " "),
        basic("grafana", SECRET[:-1]), {"authorization": "Bearer"}, {"authorization": f"Bearer x{SECRET}"},
        {"authorization": "Basic %%%"}, {"authorization": "x"},
        {"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()}, {"x-clickhouse-user": "grafana"},
        {"x-clickhouse-key": SECRET}, {"x-clickhouse-user": "grafana", "x-clickhouse-key": SECRET, **basic("grafana", SECRET)},
    ],
)  # fmt: skip
def test_half_right_is_wrong(user: ClickHouseUser, headers: dict[str, str]):
    with pytest.raises(QueryError) as refused:
        Users((user,), everybody=True).admit(headers, {})
    assert (refused.value.name, refused.value.status) == ("AUTHENTICATION_FAILED", 403)
    assert SECRET not in str(refused.value)


def test_two_users_of_one_name_and_secrets_that_others_read_are_refused(user: ClickHouseUser, tmp_path: Path):
    with pytest.raises(ConfigError, match="'grafana' is there twice"):
        Users((user, user), everybody=True)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="secret_file of grafana: others can use"):
        Users((user,), everybody=True)


def test_users_are_configured_in_a_file(tmp_path: Path):
    path = tmp_path / "headwatch.toml"
    path.write_text(
        '[clickhouse]\nmax_running = 2\n[[clickhouse.users]]\nname = "a"\nsecret_file = "/s"\nroutes = ["r"]\n'
    )
    config = load(path=str(path), environ={}).config
    assert config.clickhouse.users == (ClickHouseUser(name="a", secret_file="/s", routes=("r",)),)
    assert config.clickhouse.max_running == 2
    assert msgspec.to_builtins(Config())["clickhouse"]["users"] == ()
    path.write_text('[[clickhouse.users]]\nname = "a"\nsecret_file = "/s"\nservice = ["r"]\n')
    with pytest.raises(ConfigError, match="unknown field `service`"):
        load(path=str(path), environ={})
