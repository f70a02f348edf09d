"""Entry point ``vllm.general_plugins``: three hooks, and nothing else.

vLLM calls :func:`register` in every process, possibly more than once, and does not guard the call: an exception here
would end the server.  So everything is caught, said once in the log, and leaves vLLM as it was.

The hooks are set on light classes, before they are used: ``InputProcessor.process_inputs`` in the front end,
``SchedulerConfig.get_scheduler_cls`` in the engine core, and ``WorkerWrapperBase.initialize_from_config`` and
``execute_model`` in the worker, through which every executor goes.  A release of vLLM that is not known gets a worker that
says so, and no more.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.settings import Settings
    from headwatch.capture.worker import Capture
    from headwatch.config import Config

logger = logging.getLogger("headwatch.capture")

SUPPORTED_ENGINES = ((0, 31), (0, 34))
"""vLLM versions from the first up to, not including, the second: those that docs/engine-contract.json was written for and
that satisfy it."""
_ATTRIBUTE = "_headwatch_capture"
_FOLLOWER = "_headwatch_follower"


def register() -> None:
    """Install the hooks.  Idempotent; never raises; does nothing where ``HEADWATCH_DISABLE=1``."""
    try:
        if os.environ.get("HEADWATCH_DISABLE", "") not in {"", "0"}:
            return
        _install()
    except Exception as error:  # noqa: BLE001 - an exception here would end the server
        logger.error("headwatch is off: %s: %s", type(error).__name__, error)  # noqa: TRY400 - one line, no traceback


def _install() -> None:
    from headwatch.config_file import load  # noqa: PLC0415

    config = load().config

    import vllm  # noqa: PLC0415 - this function runs inside vLLM only

    unsupported = refused_engine(vllm.__version__)
    if unsupported:
        logger.error("headwatch is off: %s", unsupported)
    if not config.capture.enabled:
        return

    from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415

    if unsupported:
        install_announcement(WorkerWrapperBase, config, f"engine: {unsupported}")
        return
    from vllm.config.scheduler import SchedulerConfig  # noqa: PLC0415
    from vllm.v1.engine.input_processor import InputProcessor  # noqa: PLC0415

    from headwatch.capture.engine.graphs import mark_schedules_of  # noqa: PLC0415
    from headwatch.capture.request.front_end import FrontEnd  # noqa: PLC0415

    FrontEnd(config.capture, config.wire, config.text).install(InputProcessor)
    install_worker_hook(WorkerWrapperBase, config)
    mark_schedules_of(SchedulerConfig, _core_settings(config))


def refused_engine(version: str) -> str:
    """Return why a vLLM of *version* is not captured; empty where it is."""
    first, last = SUPPORTED_ENGINES
    try:
        known = first <= tuple(int(part) for part in version.split(".")[:2]) < last
    except ValueError:
        known = False
    supported = f"{'.'.join(map(str, first))} up to, not including, {'.'.join(map(str, last))}"
    return "" if known else f"vLLM {version} is not supported (supported: {supported})"


def current(wrapper: Any) -> Capture | None:
    """Return the capture attached to a vLLM ``WorkerWrapperBase``, or None where there is none."""
    capture: Capture | None = wrapper.__dict__.get(_ATTRIBUTE)
    return capture


def place(wrapper: Any, capture: Capture | None) -> None:
    """Put *capture* where :func:`current` and the hooks of *wrapper* find it; None: vLLM steps without one."""
    wrapper.__dict__[_ATTRIBUTE] = capture


def install_worker_hook(wrapper_class: Any, config: Config) -> None:
    """Wrap the two methods of *wrapper_class* (vLLM 0.32 ``WorkerWrapperBase``), once."""
    if getattr(wrapper_class, "__headwatch__", False):
        return
    wrapper_class.__headwatch__ = True
    wrapper_class.initialize_from_config = _attaching(wrapper_class.initialize_from_config, config)
    wrapper_class.execute_model = _stepping(wrapper_class.execute_model)


def _attaching(original: Callable[..., Any], config: Config) -> Callable[..., Any]:
    @functools.wraps(original)
    def initialize_from_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        try:
            from headwatch.capture.attach import create  # noqa: PLC0415 - loads torch, in the worker only

            place(self, create(config, self.worker))
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            _stand_by(self, config, f"start: {type(error).__name__}: {error}")
        return result

    return initialize_from_config


def install_announcement(wrapper_class: Any, config: Config, reason: str) -> None:
    """Wrap ``initialize_from_config`` of *wrapper_class*, once: each worker says that it is down, and why."""
    if getattr(wrapper_class, "__headwatch__", False):
        return
    wrapper_class.__headwatch__ = True
    original = wrapper_class.initialize_from_config

    @functools.wraps(original)
    def initialize_from_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        _announce(self, config, reason)
        return result

    wrapper_class.initialize_from_config = initialize_from_config


def _stand_by(wrapper: Any, config: Config, reason: str) -> None:
    """Say that capture could not start in a worker, and let it obey the decision that its other ranks obey."""
    logger.error("headwatch capture is off: %s", reason)
    _announce(wrapper, config, reason)
    try:
        from headwatch.capture.engine import graphs  # noqa: PLC0415

        follower = graphs.Follower()
        graphs.install(follower, wrapper.worker)
        wrapper.__dict__[_FOLLOWER] = follower
    except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
        logger.error("headwatch cannot follow the other ranks: %s: %s", type(error).__name__, error)  # noqa: TRY400


def _announce(wrapper: Any, config: Config, reason: str) -> None:
    try:
        from headwatch.capture.engine.standby import announce  # noqa: PLC0415

        announce(config, wrapper.worker, reason)
    except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
        logger.error("headwatch cannot report that it is off: %s: %s", type(error).__name__, error)  # noqa: TRY400


def _core_settings(config: Config) -> Callable[[], Settings]:
    """Return what is in force in the engine core, which hears live control from its first step on."""
    from headwatch.capture.control import ControlReceiver  # noqa: PLC0415

    control = ControlReceiver(config.capture, config.wire)
    listening = False

    def settings() -> Settings:
        nonlocal listening
        if not listening:
            listening = True
            control.start()
        return control.settings

    return settings


def _stepping(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute_model(self: Any, scheduler_output: Any) -> Any:
        steps = self.__dict__.get(_ATTRIBUTE) or self.__dict__.get(_FOLLOWER)
        if steps is None:
            return original(self, scheduler_output)
        steps.begin_step(scheduler_output)
        try:
            return original(self, scheduler_output)
        finally:
            steps.end_step()

    return execute_model
