"""Prompts and fingerprints as files: what is written is read back, and what is wrong is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.canary.arrays import pack, unpack
from headwatch.canary.fingerprint import Fingerprint, learn, load, save
from headwatch.canary.prompts import BUILT_IN, load_prompts
from headwatch.canary.shelf import KEPT, Shelf
from headwatch.errors import CanaryError, ConfigError

from .models import HEADS, LAYERS, PROMPTS, noisy, run, values


def test_the_built_in_prompts_change_only_with_their_version() -> None:
    """A fingerprint pinned last year must find the same prompts: whoever edits one raises the version and this digest."""
    assert (BUILT_IN.version, BUILT_IN.digest) == ("headwatch-1", "871096db2acd60ad")
    assert load_prompts(None) is BUILT_IN


def test_an_operator_may_give_prompts_of_his_own(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(
        'version = "ours-1"\n[[prompt]]\nname = "invoice"\nmessages = [{ role = "user", content = "Terms: 30 days. Due?" }]\n'
        'documents = [{ id = "terms", text = "Terms: 30 days." }]\n'
    )
    found = load_prompts(path)
    assert (found.version, found.prompt[0].name, found.prompt[0].documents[0].id) == ("ours-1", "invoice", "terms")
    assert found.digest != BUILT_IN.digest


MESSAGES = 'messages = [{role = "user", content = "x"}]\n'
WRONG = [
    "", "version = ", 'version = "a"', 'version = "a"\nprompt = []', 'version = "a"\nprompts = 3',
    f'version = "a"\n[[prompt]]\nname = "a b"\n{MESSAGES}', 'version="a"\n' + f'[[prompt]]\nname = "a"\n{MESSAGES}' * 2,
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_prompts_that_are_wrong_are_refused_with_their_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"prompts\.toml"):
        load_prompts(path)
    with pytest.raises(ConfigError, match="missing"):
        load_prompts(tmp_path / "missing.toml")


@given(st.lists(st.floats(width=32), max_size=30))
def test_arrays_come_back_bit_for_bit(numbers: list[float]) -> None:
    given_values = np.array(numbers, np.float32)
    assert unpack(pack(given_values), given_values.shape).tobytes() == given_values.tobytes()


@pytest.mark.parametrize("text", ["", "!", "AAAA", pack(np.zeros(3, np.float32)), pack(np.zeros(5, np.float32)),
                                  pack(np.zeros(10_000_000, np.float32))])  # fmt: skip
def test_arrays_that_are_not_of_their_shape_are_refused(text: str) -> None:
    with pytest.raises(CanaryError):
        unpack(text, (4,))


def test_an_array_larger_than_any_fingerprint_is_refused_before_it_is_made() -> None:
    with pytest.raises(CanaryError, match="larger"):
        unpack("", (1 << 20, 1 << 20))


@pytest.mark.parametrize("noise", [False, True])
def test_a_fingerprint_comes_back_as_it_was_for_its_owner_alone(tmp_path: Path, noise: bool) -> None:
    runs = [noisy(seed) for seed in range(8)] if noise else [run()] * 3
    pinned = learn(runs, PROMPTS, 7, "release 4")
    save(pinned, tmp_path / "deep" / "print.json")
    assert load(tmp_path / "deep" / "print.json") == pinned
    assert (tmp_path / "deep" / "print.json").stat().st_mode & 0o777 == 0o600
    assert (pinned.noise is None) != noise
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["print.json"], "nothing temporary is left"
    np.testing.assert_allclose(pinned.values(pinned.prompts[0]), values("one"), atol=2e-3 if noise else 0)
    assert pinned.shape(pinned.prompts[0]) == (8, LAYERS, HEADS, 6)


def test_a_fingerprint_holds_no_text_of_its_prompts(tmp_path: Path) -> None:
    save(learn([run()], PROMPTS, 7), tmp_path / "print.json")
    assert b"content" not in (tmp_path / "print.json").read_bytes()


@pytest.mark.parametrize("change", [{"format": 2}, {"features": ("entropy",)}, {"layers": 7}])
def test_a_fingerprint_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "print.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(learn([run()], PROMPTS, 7), **change)))
    with pytest.raises(CanaryError):
        load(path)
    for content in (b"", b"{}", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(CanaryError, match=r"print\.json"):
            load(path)


def test_runs_of_two_models_make_no_fingerprint() -> None:
    for other in (run(dtype="bfloat16"), run(prompt_tokens=21), run(digest="e"), run(adapter="a")):
        with pytest.raises(CanaryError, match="not of one model"):
            learn([run(), other], PROMPTS, 7)
    with pytest.raises(CanaryError, match="incomplete"):
        learn([run(failures={"two": "no rows"})], PROMPTS, 7)
    with pytest.raises(CanaryError, match="no run"):
        learn([], PROMPTS, 7)


def test_noise_is_not_learned_from_a_few_runs() -> None:
    with pytest.raises(CanaryError, match="pin at least 8"):
        learn([noisy(seed) for seed in range(7)], PROMPTS, 7)
    with pytest.raises(CanaryError, match="pin at least 8"):
        learn([run(dtype="bfloat16")] * 3, PROMPTS, 7)
    assert learn([run(dtype="bfloat16")] * 8, PROMPTS, 7).noise is None, "eight runs, some in company, that all agree"


def named(note: str) -> Fingerprint:
    return learn([run()], PROMPTS, 7, note)


def test_the_shelf_keeps_what_it_replaces_and_sees_what_others_write(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "fingerprints")
    assert shelf.current() is None
    shelf.pin(named("first"))
    assert shelf.current() == named("first")
    save(named("by another process"), shelf.path)
    assert shelf.current() == named("by another process")
    for number in range(KEPT + 3):
        shelf.pin(named(str(number)))
    kept = sorted(path for path in shelf.folder.iterdir() if path != shelf.path)
    assert len(kept) == KEPT
    assert load(kept[-1]) == named(str(KEPT + 1)), "the one before the last is the newest of those kept"


def test_a_configured_fingerprint_must_be_there_and_is_not_pinned_over(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, tmp_path / "production.json")
    with pytest.raises(CanaryError, match=r"production\.json"):
        shelf.current()
    save(named("production"), tmp_path / "production.json")
    assert shelf.current() == named("production")
    with pytest.raises(CanaryError, match="--out"):
        shelf.pin(named("other"))
