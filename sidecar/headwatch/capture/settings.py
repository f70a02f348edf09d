"""What is in force: the configuration file's sampling, and what live control says on top of it.

One frozen object, replaced whole, so that a step or a request that has read the reference once sees one state.  What is
set for a route wins over what is set for all; within each, live control wins over the file; a raise can only add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import CaptureConfig, RouteConfig
    from headwatch.wire.control import ControlMessage, Target


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request is sampled."""

    sample_rate: float
    step_stride: int
    prefill_stride: int
    """0: only the last row of the prompt."""
    detail: int

    def adjusted(self, by: RouteConfig) -> Sampling:
        """Return this with everything that *by* gives in its place."""
        return Sampling(
            self.sample_rate if by.sample_rate is None else by.sample_rate,
            self.step_stride if by.step_stride is None else by.step_stride,
            self.prefill_stride if by.prefill_stride is None else by.prefill_stride,
            self.detail if by.detail is None else by.detail,
        )

    def raised(self, to: RouteConfig) -> Sampling:
        """Return this with more where *to* gives more, and with nothing less."""
        return Sampling(
            max(self.sample_rate, to.sample_rate or 0.0),
            min(self.step_stride, to.step_stride or self.step_stride),
            min(filter(None, (self.prefill_stride, to.prefill_stride)), default=0),
            max(self.detail, to.detail or 0),
        )


@dataclass(frozen=True, slots=True)
class Raised:
    """A raise in force until *deadline* on the receiver's monotonic clock."""

    target: Target
    to: RouteConfig
    deadline: float

    def covers(self, route: str, adapter: str, tokens: int) -> bool:
        """Return whether a request of *route* and *adapter* that sees *tokens* positions is meant."""
        target = self.target
        return (
            (target.route is None or target.route == route)
            and (target.adapter is None or target.adapter == adapter)
            and tokens >= target.context_from
            and (not target.context_to or tokens < target.context_to)
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that live control may change, as it is now."""

    everything: Sampling
    routes: Mapping[str, Sampling] = field(default_factory=dict)
    enabled: bool = True
    raises: tuple[Raised, ...] = ()
    epoch: int = 0
    """The control message that is in force; 0: none has been heard, the file's settings hold."""
    deadline: float = math.inf
    """When the earliest time limit of all this passes, on the receiver's monotonic clock."""

    def of(self, route: str, adapter: str = "", tokens: int = 0) -> Sampling:
        """Return how a request of *route* and *adapter* that sees *tokens* positions is sampled."""
        sampling = self.routes.get(route, self.everything)
        for item in self.raises:
            if item.covers(route, adapter, tokens):
                sampling = sampling.raised(item.to)
        return sampling


def of_file(config: CaptureConfig) -> Settings:
    """Return the settings of the configuration file."""
    everything = Sampling(config.sample_rate, config.step_stride, config.prefill_stride, config.detail)
    return Settings(everything, {route: everything.adjusted(own) for route, own in config.routes.items()})


def ordered(config: CaptureConfig, message: ControlMessage, raises: tuple[Raised, ...], expiry: float) -> Settings:
    """Return *config* as *message* changes it, with *raises* on top, until the first deadline passes."""
    everything = of_file(config).everything.adjusted(message.everything)
    routes = {}
    for route in config.routes.keys() | message.routes.keys():
        sampling = everything
        for source in (config.routes, message.routes):
            if route in source:
                sampling = sampling.adjusted(source[route])
        routes[route] = sampling
    settings = Settings(everything, routes, message.enabled, epoch=message.epoch)
    return limited(settings, raises, expiry)


def limited(settings: Settings, raises: tuple[Raised, ...], expiry: float) -> Settings:
    """Return *settings* with *raises*, until the first of their deadlines or *expiry* passes."""
    return replace(settings, raises=raises, deadline=min((expiry, *(item.deadline for item in raises))))
