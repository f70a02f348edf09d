"""The wheel, built as a release is: what it puts into an environment, and what it asks for."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def read(wheel: zipfile.ZipFile, name: str) -> bytes:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path)


def test_the_top_level_names_are_ours_alone(wheel: zipfile.ZipFile):
    """A name such as `sidecar` would overwrite another package inside vLLM's environment."""
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "headwatch", "headwatch_exporters", "headwatch_dashboards",
    }  # fmt: skip


def test_the_base_install_asks_for_nothing_that_vllm_does_not_bring(wheel: zipfile.ZipFile):
    requirements = [Requirement(text) for text in message_from_bytes(read(wheel, "METADATA")).get_all("Requires-Dist") or []]
    base = {item.name for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})}
    assert base == {"msgspec", "numpy", "pyzmq"}


def test_every_file_of_the_source_roots_is_in_it(wheel: zipfile.ZipFile):
    """SQL, JSON and HTML included: a template that is left out fails at the customer's only."""
    shipped = set(wheel.namelist())
    roots = {"sidecar": "headwatch", "exporters": "headwatch_exporters", "dashboards": "headwatch_dashboards"}
    expected = {
        path.relative_to(ROOT / root).as_posix()
        for root, package in roots.items()
        for path in (ROOT / root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - shipped == set()
    for kind in ("sql", "json", "html"):
        assert any(name.endswith(f".{kind}") for name in shipped), kind
    assert {f"{package}/py.typed" for package in roots.values()} <= shipped
    assert not any(name.startswith("tests/") or "__pycache__" in name for name in shipped)


def test_vllm_finds_the_plugin_and_the_shell_the_command(wheel: zipfile.ZipFile):
    points = ConfigParser()
    points.read_string(read(wheel, "entry_points.txt").decode())
    assert dict(points["vllm.general_plugins"]) == {"headwatch": "headwatch.capture.plugin:register"}
    assert dict(points["console_scripts"]) == {"headwatch": "headwatch.cli.main:main"}


def test_the_wheel_works_from_where_it_is_unpacked(wheel: zipfile.ZipFile, tmp_path: Path):
    """Not the source tree: the unpacked wheel answers, with the page and the sections of its own files."""
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import headwatch; "
        f"assert headwatch.__file__.startswith({str(tmp_path)!r}), headwatch.__file__; "
        "from headwatch.console.page import render_page; from headwatch.health import Health; "
        "assert b'not ready' in render_page(Health(0, (), {}, {}), ['x']); "
        "from headwatch.cli.main import main; sys.exit(main(['config', 'check']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
