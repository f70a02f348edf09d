"""Entry point ``vllm.general_plugins``: two hooks, and nothing else.

vLLM calls :func:`register` in every process, possibly more than once, and does not guard the call: an exception here
would end the server.  So everything is caught, said once in the log, and leaves vLLM as it was.

The hooks are set on two light classes, before they are used: ``InputProcessor.process_inputs`` in the front end, and
``WorkerWrapperBase.initialize_from_config`` and ``execute_model`` in the worker, through which every executor goes.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.worker import Capture
    from headwatch.config import Config

logger = logging.getLogger("headwatch.capture")

SUPPORTED_ENGINES = ((0, 32), (0, 34))
"""vLLM versions from the first up to, not including, the second."""
_ATTRIBUTE = "_headwatch_capture"


def register() -> None:
    """Install the hooks.  Idempotent; never raises; does nothing where ``HEADWATCH_DISABLE=1``."""
    try:
        if os.environ.get("HEADWATCH_DISABLE", "") not in {"", "0"}:
            return
        _install()
    except Exception as error:  # noqa: BLE001 - an exception here would end the server
        logger.error("headwatch is off: %s: %s", type(error).__name__, error)  # noqa: TRY400 - one line, no traceback


def _install() -> None:
    import vllm  # noqa: PLC0415 - this function runs inside vLLM only

    from headwatch.config import load  # noqa: PLC0415

    version = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    first, last = SUPPORTED_ENGINES
    if not first <= version < last:
        logger.error("headwatch is off: vLLM %s is not supported (supported: %s up to, not including, %s)",
                     vllm.__version__, ".".join(map(str, first)), ".".join(map(str, last)))
        return
    config = load().config
    if not config.capture.enabled:
        return

    from vllm.v1.engine.input_processor import InputProcessor  # noqa: PLC0415
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415

    from headwatch.capture.front_end import FrontEnd  # noqa: PLC0415

    FrontEnd(config.capture).install(InputProcessor)
    install_worker_hook(WorkerWrapperBase, config)


def current(wrapper: Any) -> Capture | None:
    """Return the capture attached to a vLLM ``WorkerWrapperBase``, or None where there is none."""
    capture: Capture | None = wrapper.__dict__.get(_ATTRIBUTE)
    return capture


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

            self.__dict__[_ATTRIBUTE] = create(config, self.worker)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            logger.error("headwatch capture is off: %s: %s", type(error).__name__, error)  # noqa: TRY400
        return result

    return initialize_from_config


def _stepping(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute_model(self: Any, scheduler_output: Any) -> Any:
        capture = self.__dict__.get(_ATTRIBUTE)
        if capture is None:
            return original(self, scheduler_output)
        capture.begin_step(scheduler_output)
        try:
            return original(self, scheduler_output)
        finally:
            capture.end_step()

    return execute_model
