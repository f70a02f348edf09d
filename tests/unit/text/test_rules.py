"""Which texts are kept: nothing unless the operator says so, and then by route."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwatch.config import Config, TextConfig, TextRoute, TextRule
from headwatch.config_file import load
from headwatch.errors import ConfigError
from headwatch.pipeline import Sidecar


def test_nothing_is_kept_unless_it_is_turned_on_and_a_route_says_so():
    assert not Config().text.enabled
    assert not TextConfig().rule("support").keep
    assert not TextConfig(enabled=True).rule("support").keep
    assert not TextConfig(default="keep").rule("support").keep, "the switch is above every route"
    assert TextConfig(enabled=True, default="keep").rule("support").keep


def test_a_route_has_rules_of_its_own_and_the_rest_from_everybody():
    config = TextConfig(
        enabled=True,
        routes={"hr": TextRoute(keep=True, max_chars=100, ttl_days=1), "it": TextRoute(sample_rate=0.5)},
    )
    assert config.rule("hr") == TextRule(keep=True, sample_rate=1.0, max_chars=100, ttl_days=1)
    assert config.rule("it") == TextRule(keep=False, sample_rate=0.5, max_chars=8192, ttl_days=3)
    never = TextConfig(enabled=True, default="keep", routes={"hr": TextRoute(keep=False)})
    assert not never.rule("hr").keep
    assert never.rule("").keep


def loaded(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "headwatch.toml"
    path.write_text(text)
    return load(path=str(path), environ=environ).config


def test_routes_and_patterns_are_read_from_the_file_and_keys_are_no_settings(tmp_path: Path):
    config = loaded(
        tmp_path,
        '[text]\nenabled = true\nredact = [{name = "ticket", pattern = "T-\\\\d+"}]\n[text.routes.hr]\nkeep = true\n'
        'redact = [{name = "staff", pattern = "P\\\\d+", replacement = "<staff>"}]\n',
        HEADWATCH_TEXT_KEY="whatever", HEADWATCH_TEXT_OLD_KEYS="whatever", HEADWATCH_TEXT_TTL_DAYS="2",
    )  # fmt: skip
    assert (config.text.rule("hr").keep, config.text.rule("hr").ttl_days) == (True, 2)
    assert config.text.redact[0].pattern == r"T-\d+"
    assert config.text.routes["hr"].redact[0].replacement == "<staff>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[wire]\nendpoint = 'tcp://10.0.0.7:9465'\nallow_remote = true\n[text]\nenabled = true",
            "leaves loopback, and texts",
        ),
        ("[wire]\nendpoint = 'ipc://@headwatch'\n[text]\nenabled = true", "abstract socket"),
        ("[store]\nenabled = false\n[text]\nenabled = true", "kept in the store"),
        ("[text]\nredact = [{name = 'email', pattern = 'a'}]", "'email' is the name of more than one pattern"),
        (
            "[text]\nredact = [{name = 'a', pattern = 'a'}]\nroutes = {r = {redact = [{name = 'a', pattern = 'b'}]}}",
            "'a' is the name",
        ),
        ("[text]\nredact = [{name = 'A b', pattern = 'a'}]", "text.redact"),
        ("[text]\nhook = 'nothing'", "text.hook"),
        ("[text]\nbuiltin = ['mail']", "text.builtin"),
        ("[text.routes.hr]\nkep = true", "unknown field `kep`"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)


@pytest.mark.parametrize("given", [None, "", "short", "x" * 44])
def test_a_sidecar_without_a_usable_key_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
):
    monkeypatch.delenv("HEADWATCH_TEXT_KEY", raising=False)
    if given is not None:
        monkeypatch.setenv("HEADWATCH_TEXT_KEY", given)
    config = loaded(tmp_path, f"[text]\nenabled = true\n[store]\nurl = 'chdb://{tmp_path}/store'")
    with pytest.raises(ConfigError, match=r"HEADWATCH_TEXT_KEY.*headwatch text key") as refused:
        Sidecar(config)
    assert "\n" not in str(refused.value)
    assert not given or given not in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_a_sidecar_warns_where_others_could_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("HEADWATCH_TEXT_KEY", raising=False)
    shared, own, group = tmp_path / "shared", tmp_path / "own", tmp_path / "group"
    for folder, mode in ((shared, 0o1777), (own, 0o700), (group, 0o770)):
        folder.mkdir()
        folder.chmod(mode)
    for endpoint, warned in (
        (f"ipc://{own}/wire", False), (f"ipc://{group}/wire", False), (f"ipc://{tmp_path}/none/wire", False),
        (f"ipc://{shared}/wire", True), ("tcp://127.0.0.1:9465", True),
    ):  # fmt: skip
        caplog.clear()
        config = loaded(tmp_path, f"[text]\nenabled = true\n[wire]\nendpoint = '{endpoint}'")
        with pytest.raises(ConfigError):  # there is no key, so nothing is opened
            Sidecar(config)
        assert ("use ipc://" in caplog.text) is warned
