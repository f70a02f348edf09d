"""Checks of the environment that the doctor runs in: would capture start in this vLLM, would the sidecar start here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch import __version__
from headwatch.capture.plugin import SUPPORTED_ENGINES
from headwatch.doctor.context import PLUGIN_GROUP, Finding
from headwatch.errors import ConfigError, HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.doctor.context import Context

PYTHON = (3, 11)
PLUGIN_VALUE = "headwatch.capture.plugin:register"


def python_version(context: Context) -> Finding | None:
    """Is this Python new enough."""
    text = ".".join(map(str, context.python))
    if context.python < PYTHON:
        return Finding("python", "fail", f"Python {text} is too old", "use Python 3.11 or newer")
    return Finding("python", "ok", f"Python {text}, headwatch {__version__}")


def engine_installed(context: Context) -> Finding | None:
    """Is a vLLM installed that capture supports."""
    if context.engine is None:
        return Finding("vllm", "warn", "vLLM is not installed in this environment, so nothing is captured here",
                       "run the doctor in vLLM's own environment to check capture; for the sidecar alone this is right")
    if not supported(context.engine):
        return Finding("vllm", "fail", f"vLLM {context.engine} is not supported: capture switches itself off",
                       f"install a vLLM {supported_text()}")
    if context.engine_package != "vllm":  # its command line asks for the version of a package "vllm", and ends
        return Finding("vllm", "ok", f"vLLM {context.engine} from the package {context.engine_package}, whose `vllm serve` "
                                     "does not start: use python -m vllm.entrypoints.openai.api_server")
    return Finding("vllm", "ok", f"vLLM {context.engine}")


def plugin_present(context: Context) -> Finding | None:
    """Would vLLM find the plugin."""
    value = context.plugins.get("headwatch")
    if value is None:
        return Finding("plugin", "fail", f"no entry point 'headwatch' in {PLUGIN_GROUP}: vLLM does not see the plugin",
                       "reinstall headwatch in vLLM's environment: pip install --force-reinstall --no-deps headwatch")
    if value != PLUGIN_VALUE:
        return Finding("plugin", "fail", f"the entry point 'headwatch' leads to {value}, not to {PLUGIN_VALUE}",
                       "another package or an old version is in the way: pip uninstall it, then install headwatch again")
    return Finding("plugin", "ok", f"vLLM finds the plugin ({PLUGIN_GROUP})")


def plugin_allowed(context: Context) -> Finding | None:
    """Does VLLM_PLUGINS, where it is set, name the plugin."""
    names = context.environ.get("VLLM_PLUGINS")
    if names is None:
        return Finding("vllm_plugins", "ok", "VLLM_PLUGINS is not set: vLLM loads every plugin")
    if "headwatch" not in names.split(","):
        wanted = ",".join(filter(None, (names, "headwatch")))
        return Finding("vllm_plugins", "fail", f"VLLM_PLUGINS={names!r} does not name headwatch: vLLM leaves it out",
                       f"start vLLM with VLLM_PLUGINS={wanted}")
    return Finding("vllm_plugins", "ok", "VLLM_PLUGINS names headwatch")


def not_disabled(context: Context) -> Finding | None:
    """Is HEADWATCH_DISABLE set."""
    value = context.environ.get("HEADWATCH_DISABLE", "")
    if value not in {"", "0"}:
        return Finding("disable", "warn", f"HEADWATCH_DISABLE={value} is set: a vLLM started from here captures nothing",
                       "unset HEADWATCH_DISABLE and restart vLLM")
    return Finding("disable", "ok", "HEADWATCH_DISABLE is not set")


def configuration(context: Context) -> Finding | None:
    """Is the configuration right."""
    if context.loaded is None:
        return Finding("config", "fail", context.config_error, "correct it; `headwatch config check` tells when it is right")
    count = len(context.loaded.origins)
    return Finding("config", "ok", f"in order, {count} set" if count else "in order, all defaults")


def capture_enabled(context: Context) -> Finding | None:
    """Does the configuration sample anything at all."""
    if context.loaded is None:
        return None
    capture = context.loaded.config.capture
    if not capture.enabled:
        return Finding("capture", "warn", "capture.enabled is false: nothing is captured", "set capture.enabled = true")
    if capture.sample_rate == 0:
        return Finding("capture", "warn", "capture.sample_rate is 0: no request is sampled",
                       "set capture.sample_rate, for example to 0.1")
    text = f"samples {capture.sample_rate:.4g} of all requests, and of their generated tokens one in {capture.step_stride}"
    workers = context.sidecar.health.workers if context.sidecar.health else ()
    wanted = (capture.sample_rate, capture.step_stride)
    other = next((w.status for w in workers if (w.status.sample_rate, w.status.step_stride) != wanted), None)
    if other is not None:
        return Finding("capture", "warn", f"here: {text}; but a running worker samples {other.sample_rate:.4g}, one token in "
                                          f"{other.step_stride}",
                       "run the doctor with vLLM's own HEADWATCH_ variables and file, or restart vLLM with these")
    return Finding("capture", "ok", text)


def head_map(context: Context) -> Finding | None:
    """Can the head map be read, where one is configured."""
    if context.loaded is None:
        return None
    path = context.loaded.config.grounding.head_map
    if not path:
        return Finding("head_map", "ok", "none configured: ratios are over all heads only")
    from headwatch.aggregate.head_map import load_head_map  # noqa: PLC0415 - loads numpy, and only where one is named

    try:
        loaded = load_head_map(path)
    except ConfigError as error:
        return Finding("head_map", "fail", str(error), "correct grounding.head_map, or make it readable for the sidecar")
    health = context.sidecar.health
    served = sorted({worker.status.worker.model for worker in health.workers}) if health else []
    if served and loaded.model not in served:
        return Finding("head_map", "warn", f"{path} is for the model {loaded.model!r}; the workers serve {', '.join(served)}: "
                                           "it is not used",
                       "calibrate a head map for the served model, or serve it under that name (--served-model-name)")
    return Finding("head_map", "ok", f"{len(loaded.members('retrieval'))} retrieval heads of {loaded.model}")


def sidecar_libraries(context: Context) -> Finding | None:
    """Could the sidecar run in this environment."""
    if context.missing_modules:
        return Finding("libraries", "warn", f"the sidecar cannot run here, it lacks: {', '.join(context.missing_modules)}",
                       "pip install 'headwatch[sidecar]' where the sidecar runs; vLLM's environment needs none of it")
    return Finding("libraries", "ok", "everything that the sidecar needs is installed")


def compiled_arithmetic(context: Context) -> Finding | None:
    """Does the sidecar compute with compiled code here."""
    if context.missing_modules:
        return None
    from headwatch.native.frames import load  # noqa: PLC0415 - loads numpy

    try:
        load()
    except HeadwatchError as error:
        return Finding("arithmetic", "warn", f"the sidecar computes with numpy and takes less than half as many rows: {error}",
                       "install a C compiler where the sidecar runs (gcc or clang; two seconds at the first start)")
    return Finding("arithmetic", "ok", "the sidecar computes with code compiled for this machine")


def supported(version: str) -> bool:
    """Return whether capture supports this *version* of vLLM; one that cannot be read is not."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isdigit() for part in parts):  # noqa: PLR2004 - major and minor
        return False
    first, last = SUPPORTED_ENGINES
    return first <= tuple(map(int, parts)) < last


def supported_text() -> str:
    """Return the supported range in words."""
    first, last = (".".join(map(str, version)) for version in SUPPORTED_ENGINES)
    return f"from {first} up to, not including, {last}"


CHECKS: tuple[Callable[[Context], Finding | None], ...] = (
    python_version, engine_installed, plugin_present, plugin_allowed, not_disabled, configuration, capture_enabled,
    head_map, sidecar_libraries, compiled_arithmetic,
)  # fmt: skip
