"""CUDA graphs: a sampled step excludes FULL ones, an unsampled step replays them untouched.

A FULL graph replays the whole model without Python, ours included; in PIECEWISE graphs and without graphs attention runs
between the pieces, and the layers' hooks with it.  So in a sampled step the engine's own dispatcher is asked for anything
but FULL, in its own words: V1 has ``invalid_modes`` for it; in V2 a batch that is no uniform decode matches no FULL graph
for decoding.

All ranks of an engine must take the same decision, or they would run different graphs and wait for, or read, the wrong
buffers of each other.  No collective is added:

* Tensor and pipeline parallel ranks of one engine get one scheduler output, and with it one decision: the engine core marks
  the output (:func:`mark`), and a rank of several obeys the mark and nothing of its own.  Without a mark nothing is excluded:
  decode steps then replay FULL graphs and are not seen.  A worker that is alone decides by itself, so that its budget,
  breaker and live control count at once.
* Data parallel ranks already agree on the smallest mode that any of them wants, in a reduction that they do in every step
  (V1: ``coordinate_batch_across_dp``, V2: ``sync_cudagraph_and_dp_padding``).  V1 then dispatches again with that mode alone.
  V2 dispatches again with what the ranks told each other of their batches, so a sampled rank says that its batch is no
  uniform decode, and no rank finds a FULL graph for it; where graphs for mixed batches are FULL as well, it says NONE, and all
  ranks run without graphs.

Source: vLLM 0.32 ``v1/cudagraph_dispatcher.py``, ``v1/worker/dp_utils.py``, ``v1/worker/gpu/cudagraph_utils.py``,
``v1/worker/gpu/dp_utils.py``.  Cost in an unsampled step: two attribute tests.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from headwatch.capture.plan.foresight import Forecast

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.settings import Settings
    from headwatch.capture.worker import Capture

logger = logging.getLogger("headwatch.capture")

MARK = "headwatch_sampled"
"""The attribute of a ``SchedulerOutput`` by which the engine core tells all ranks that a step may hold sampled rows."""


def install(steps: Capture | Follower, worker: Any) -> None:
    """Make the dispatcher of *worker* leave FULL graphs out while ``steps.full_graphs_excluded``."""
    runner = worker.model_runner

    def excluded() -> bool:
        return steps.full_graphs_excluded

    if getattr(worker, "use_v2_model_runner", False):
        manager = getattr(runner, "cudagraph_manager", None)
        if manager is not None:
            exclude_in_v2(manager, excluded)
            import vllm.v1.worker.gpu.model_runner as module  # noqa: PLC0415 - exists where V2 runs

            module.dispatch_cg_and_sync_dp = telling_no_uniform_batch(module.dispatch_cg_and_sync_dp, excluded)
    elif (dispatcher := getattr(runner, "cudagraph_dispatcher", None)) is not None:
        exclude_in_v1(dispatcher, excluded)


def exclude_in_v1(dispatcher: Any, excluded: Callable[[], bool]) -> None:
    """Wrap ``dispatch`` of *dispatcher* (vLLM 0.32 ``CudagraphDispatcher``)."""
    from vllm.config import CUDAGraphMode  # noqa: PLC0415 - this function runs inside vLLM only

    full = frozenset((CUDAGraphMode.FULL,))
    original = dispatcher.dispatch

    @functools.wraps(original)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        # A dispatch that may be FULL and nothing else repeats what all data parallel ranks agreed on.
        if excluded() and (kwargs.get("valid_modes") or ()) != full:
            kwargs["invalid_modes"] = full | (kwargs.get("invalid_modes") or frozenset())
        return original(*args, **kwargs)

    dispatcher.dispatch = dispatch


def exclude_in_v2(manager: Any, excluded: Callable[[], bool]) -> None:
    """Wrap ``dispatch`` of *manager* (vLLM 0.32 ``ModelCudaGraphManager``)."""
    original = manager.dispatch

    @functools.wraps(original)
    def dispatch(
        num_reqs: int, num_tokens: int, uniform_token_count: int | None, *args: Any, **kwargs: Any
    ) -> Any:
        if not excluded():
            return original(num_reqs, num_tokens, uniform_token_count, *args, **kwargs)
        kwargs["max_query_len"] = None
        found = original(num_reqs, num_tokens, None, *args, **kwargs)
        modes = type(found.cg_mode)
        if found.cg_mode is not modes.FULL:
            return found
        return dataclasses.replace(found, cg_mode=modes.NONE, num_tokens=num_tokens, num_reqs=num_reqs)

    manager.dispatch = dispatch


def telling_no_uniform_batch(original: Callable[..., Any], excluded: Callable[[], bool]) -> Callable[..., Any]:
    """Return *original* (vLLM 0.32 ``dispatch_cg_and_sync_dp``) that calls a sampled batch a mixed one."""

    @functools.wraps(original)
    def dispatch_cg_and_sync_dp(
        manager: Any, num_reqs: int, num_tokens: int, uniform_token_count: int | None, *args: Any, **kwargs: Any
    ) -> Any:
        if excluded():
            uniform_token_count = None
            kwargs.update(max_query_len=None, uniform_decode=False)
        return original(manager, num_reqs, num_tokens, uniform_token_count, *args, **kwargs)

    return dispatch_cg_and_sync_dp


class Follower:
    """What a rank does whose capture could not start: it obeys the engine core's mark as the others do, and nothing else."""

    def __init__(self) -> None:
        self.full_graphs_excluded = False

    def begin_step(self, scheduled: Any) -> None:
        """Note the mark."""
        self.full_graphs_excluded = marks(scheduled)

    def end_step(self) -> None:
        """Forget it."""
        self.full_graphs_excluded = False


def marks(scheduled: Any) -> bool:
    """Return whether the engine core marked the step *scheduled* as one that may hold sampled rows."""
    return bool(getattr(scheduled, MARK, False))


def mark_schedules_of(config_class: Any, settings: Callable[[], Settings]) -> None:
    """Wrap ``get_scheduler_cls`` of *config_class* (vLLM 0.32 ``SchedulerConfig``), once: what it returns marks its schedules.

    The engine core asks it for the class of its scheduler.  The class itself may not be loaded yet, or be the operator's own.
    """
    original = config_class.get_scheduler_cls
    if getattr(original, "__headwatch__", False):
        return

    @functools.wraps(original)
    def get_scheduler_cls(self: Any) -> Any:
        found = original(self)
        try:
            mark_schedules(found, settings)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            _unmarked(error)
        return found

    get_scheduler_cls.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    config_class.get_scheduler_cls = get_scheduler_cls


def mark_schedules(scheduler_class: Any, settings: Callable[[], Settings]) -> None:
    """Wrap ``schedule`` of *scheduler_class* (vLLM 0.32 ``Scheduler``), once: it marks steps of engines with several ranks."""
    original = scheduler_class.schedule
    if getattr(original, "__headwatch__", False):
        return
    forecasts: WeakKeyDictionary[Any, Forecast | None] = WeakKeyDictionary()

    @functools.wraps(original)
    def schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        try:
            if self not in forecasts:
                forecasts[self] = Forecast() if self.vllm_config.parallel_config.world_size > 1 else None
            forecast = forecasts[self]
            if forecast is not None and forecast.of(output, settings()):
                setattr(output, MARK, True)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            forecasts[self] = None  # one that does not follow every step may not mark the next
            _unmarked(error)
        return output

    schedule.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    scheduler_class.schedule = schedule


def _unmarked(error: Exception) -> None:
    logger.error("headwatch cannot see steps that replay FULL CUDA graphs: %s: %s", type(error).__name__, error)
