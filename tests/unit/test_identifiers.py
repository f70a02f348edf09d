"""Hashed identifiers: nothing is named, salts rotate, a purge still finds every form, what cannot be kept is not used."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.config_file import load
from headwatch.errors import ConfigError
from headwatch.identifiers import Keyring, Veil
from headwatch.model import Document
from headwatch.pipeline import _veil
from headwatch.wire.columns import view

from . import frames

if TYPE_CHECKING:
    from pathlib import Path

DAY_NS = 86_400 * 10**9


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ns = 20_000 * DAY_NS

    def __call__(self) -> int:
        return self.now_ns


def keyring(folder: Path, clock: Clock, rotate: int = 30, keep: int = 60) -> Keyring:
    return Keyring(folder / "state" / "salts.json", rotate, keep, clock)


def test_a_hash_tells_apart_and_names_nobody(tmp_path: Path) -> None:
    keys = keyring(tmp_path, Clock())
    ada = keys.hashed("user", "ursula")
    assert ada == keys.hashed("user", "ursula") != keys.hashed("user", "bob")
    assert ada != keys.hashed("tenant", "ursula"), "of another kind"
    assert "ursula" not in ada
    assert ada.startswith("h:")
    assert keys.hashed("user", "") == ""


def test_a_purge_knows_every_form_that_may_be_stored(tmp_path: Path) -> None:
    clock = Clock()
    keys = keyring(tmp_path, clock)
    forms = ["ursula"]
    for _ in range(3):
        forms.append(keys.hashed("user", "ursula"))
        clock.now_ns += 29 * DAY_NS
        assert keys.hashed("user", "ursula") == forms[-1], "not yet"
        clock.now_ns += DAY_NS
        keys.hashed("user", "anybody")
    known = keyring(tmp_path, clock).stored("user", "ursula")
    assert len(set(forms)) == 4
    assert forms[2:] == known[1:3], "the two that rows may still be hashed with, and the one in use"
    assert known[0] == "ursula"
    assert forms[1] not in known, "its last row expired 60 days after it went out of use"


def test_salts_outlive_the_process_and_are_the_owners_alone(tmp_path: Path) -> None:
    clock = Clock()
    before = keyring(tmp_path, clock).hashed("document", "kb-1")
    path = tmp_path / "state" / "salts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyring(tmp_path, clock).hashed("document", "kb-1") == before
    secret = json.loads(path.read_text())[0]["secret"]
    assert secret not in repr(keyring(tmp_path, clock).current())
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        keyring(tmp_path, clock)


@pytest.mark.parametrize(
    ("settings", "days"),
    [
        ({}, 400 + 62),
        ({"store.incident_ttl_days": 700}, 700 + 62),
        ({"drift.history_days": 900}, 900),
        ({"requests.log_days": 500}, 2 * 500),
    ],
)
def test_a_salt_is_kept_as_long_as_anything_that_was_hashed_with_it(
    tmp_path: Path, settings: dict[str, int], days: int
) -> None:
    path = tmp_path / "salts.json"
    overrides = {"privacy.hash": ["user"], "privacy.salts_file": str(path), **settings}
    veil = _veil(load(environ={}, overrides=overrides).config)
    assert veil is not None
    form = veil.keyring.hashed("user", "ursula")
    clock = Clock()
    clock.now_ns = time.time_ns() + 30 * DAY_NS  # out of use
    for later, kept in ((30, True), (days - 1, True), (days + 31, False)):
        keys = Keyring(path, 30, veil.keyring._keep_ns // DAY_NS, lambda later=later: clock.now_ns + later * DAY_NS)
        keys.current()
        assert (form in keys.stored("user", "ursula")) == kept, later


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"name": "a", "since_ns": 1, "secret": "no hex"}]'])
def test_a_file_that_holds_no_salts_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state" / "salts.json"
    path.parent.mkdir()
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="holds no salts"):
        keyring(tmp_path, Clock())


def test_a_salt_that_cannot_be_kept_is_never_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    keys = keyring(tmp_path, clock)
    before = keys.hashed("user", "ursula")
    blocking = tmp_path / "state" / "salts.json.new"
    blocking.mkdir()
    clock.now_ns += 31 * DAY_NS
    assert keys.hashed("user", "ursula") == before
    assert "old salt stays" in caplog.text
    blocking.rmdir()
    clock.now_ns += DAY_NS
    assert keys.hashed("user", "ursula") != before
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot (keep|read)"):
        Keyring(tmp_path / "file" / "salts.json", 30, 60).current()


def test_two_sidecars_with_one_file_lose_no_salt(tmp_path: Path) -> None:
    clock = Clock()
    one, other = keyring(tmp_path, clock), keyring(tmp_path, clock)
    forms = {one.hashed("user", "ursula"), other.hashed("user", "ursula")}
    assert len(forms) == 1, "the second takes the first one's"
    clock.now_ns += 31 * DAY_NS
    forms |= {other.hashed("user", "ursula"), one.hashed("user", "ursula")}
    assert len(forms) == 2
    assert forms <= set(keyring(tmp_path, clock).stored("user", "ursula"))


def test_nothing_behind_the_aggregator_sees_what_is_hashed(tmp_path: Path) -> None:
    documents = [Document("kb-1", labels={"tenant": "acme", "colour": "red"}), Document("kb-2")]
    named = msgspec.structs.replace(frames.context(), user="ursula", tenant="acme", documents=documents)
    keys = keyring(tmp_path, Clock())
    made = Aggregator(WindowConfig(), veil=Veil(keys, frozenset({"user", "tenant", "document"})))
    batch = frames.summary([(10, {}, [0.2] * 5)], request=named, finished=["r-1"])
    made.add(batch, view(batch))
    (record,) = made.collect(0, everything=True)[1]
    text = repr(record.context)
    assert not any(name in text for name in ("kb-1", "kb-2", "ursula", "acme"))
    assert record.context.user == keys.hashed("user", "ursula")
    ids = [document.id for document in record.context.documents]
    assert ids == [keys.hashed("document", name) for name in ("kb-1", "kb-2")]
    assert record.context.documents[0].labels == {"tenant": keys.hashed("tenant", "acme"), "colour": "red"}


def test_only_what_was_asked_for_is_hashed(tmp_path: Path) -> None:
    context = msgspec.structs.replace(frames.context(), user="ursula", tenant="acme")
    hashed = Veil(keyring(tmp_path, Clock()), frozenset({"tenant"}))(context)
    assert (hashed.user, hashed.documents) == ("ursula", context.documents)
    assert hashed.tenant.startswith("h:")
    plain = frames.context()
    assert Veil(keyring(tmp_path, Clock()), frozenset({"user"}))(plain) is plain
