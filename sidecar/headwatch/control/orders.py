"""What is ordered of the workers, and how a change turns one set of orders into the next.

Pure values: nothing here reads a clock, a file or a socket.  Orders are differences to the workers' own files, so the
empty orders mean "as your file says", and a reset is always right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

import msgspec

from headwatch.config import RouteConfig, RouteName
from headwatch.errors import ControlError
from headwatch.wire.control import MAX_RAISES, MAX_ROUTES, MAX_SECONDS, ControlMessage, Raise, Target

if TYPE_CHECKING:
    from headwatch.records import Stratum

_KIBI = 1024
NOTHING = RouteConfig()


class TimedRaise(msgspec.Struct, frozen=True):
    """A raise, as it was ordered."""

    number: int
    target: Target
    to: RouteConfig
    seconds: float
    who: str = ""
    why: str = ""


class Orders(msgspec.Struct, frozen=True):
    """Everything that is ordered."""

    enabled: bool = True
    everything: RouteConfig = RouteConfig()
    routes: dict[str, RouteConfig] = {}
    since: int = 0
    """The epoch in which the time limit of all the above was ordered; 0: there is none."""
    seconds: float = 0.0
    """That limit."""
    raises: tuple[TimedRaise, ...] = ()

    @property
    def limits(self) -> dict[int, float]:
        """Return the time limits: the epoch in which each was ordered, and its seconds."""
        own = {self.since: self.seconds} if self.since else {}
        return own | {item.number: item.seconds for item in self.raises}


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change: the body of ``POST /api/v1/control``."""

    action: Literal["set", "off", "on", "reset", "raise", "end"]
    route: RouteName | None = None
    """``set``, ``reset``: this route alone."""
    to: RouteConfig = RouteConfig()
    """``set``, ``raise``: the values."""
    target: Target = Target()
    """``raise``: which requests."""
    seconds: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SECONDS)] | None = None
    """``raise``: for how long.  ``set``, ``on``, ``off``: after so long all orders but raises end; 0 takes such a limit away;
    absent, the one that there is stays."""
    number: int | None = None
    """``end``: the raise."""
    who: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """Who the caller says he is: for the audit."""
    why: Annotated[str, msgspec.Meta(max_length=512)] = ""


def changed(orders: Orders, change: Change, epoch: int, who: str) -> Orders:
    """Return *orders* after *change*, which *who* makes in *epoch*.

    Raises:
        ControlError: ``invalid``: the change does not say enough, or there would be too many orders.
    """
    match change.action:
        case "set":
            return _limited(_set(orders, change), change, epoch)
        case "on" | "off":
            return _limited(msgspec.structs.replace(orders, enabled=change.action == "on"), change, epoch)
        case "reset":
            if change.route is None:
                return Orders()
            return msgspec.structs.replace(orders, routes=_without(orders.routes, change.route))
        case "raise":
            return _raised(orders, change, epoch, who)
        case "end":
            if change.number not in {item.number for item in orders.raises}:
                raise ControlError("invalid", f"there is no raise {change.number}")
            return without(orders, {change.number or 0})
        case _:
            assert_never(change.action)


def without(orders: Orders, numbers: set[int]) -> Orders:
    """Return *orders* without the raises in *numbers*, and without all that the limit ends which was ordered in one of them."""
    kept = tuple(item for item in orders.raises if item.number not in numbers)
    return Orders(raises=kept) if orders.since in numbers else msgspec.structs.replace(orders, raises=kept)


def difference(old: Orders, new: Orders) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what differs, by dotted name, as it was and as it is; a name that one side lacks is None there."""
    before, after = _flat(msgspec.to_builtins(old)), _flat(msgspec.to_builtins(new))
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def message_of(orders: Orders, left: dict[int, float], stamp: tuple[int, str, int, int]) -> ControlMessage:
    """Return *orders* as a message; *left*: seconds of each limit, *stamp*: epoch, start id, sequence, time."""
    return ControlMessage(
        *stamp,
        since=orders.since,
        enabled=orders.enabled,
        everything=orders.everything,
        routes=orders.routes,
        expires_seconds=left[orders.since] if orders.since else None,
        raises=[Raise(item.number, item.target, item.to, left[item.number]) for item in orders.raises],
    )


def target_of(stratum: Stratum) -> Target:
    """Return the requests whose rows fall into *stratum*, of either phase; without its context band where it has none."""
    low, high = _bounds(stratum.context_band)
    return Target(stratum.model, stratum.route, stratum.adapter, low, high)


def _set(orders: Orders, change: Change) -> Orders:
    if change.to == NOTHING:
        raise ControlError("invalid", "nothing to set: give a sample_rate, step_stride, prefill_stride or detail")
    if change.route is None:
        return msgspec.structs.replace(orders, everything=_merged(orders.everything, change.to))
    routes = {**orders.routes, change.route: _merged(orders.routes.get(change.route, NOTHING), change.to)}
    if len(routes) > MAX_ROUTES:
        raise ControlError("invalid", f"{MAX_ROUTES} routes have orders of their own; reset one first")
    return msgspec.structs.replace(orders, routes=routes)


def _raised(orders: Orders, change: Change, epoch: int, who: str) -> Orders:
    if change.to == NOTHING or not change.seconds:
        raise ControlError("invalid", "a raise needs values (to) and a time limit (seconds)")
    if len(orders.raises) >= MAX_RAISES:
        raise ControlError("invalid", f"{MAX_RAISES} raises are in force; end one first")
    made = TimedRaise(epoch, change.target, change.to, change.seconds, who, change.why)
    return msgspec.structs.replace(orders, raises=(*orders.raises, made))


def _limited(orders: Orders, change: Change, epoch: int) -> Orders:
    if change.seconds is None:
        return orders
    since = epoch if change.seconds > 0.0 else 0
    return msgspec.structs.replace(orders, since=since, seconds=change.seconds)


def _merged(old: RouteConfig, new: RouteConfig) -> RouteConfig:
    return msgspec.structs.replace(old, **msgspec.to_builtins(new))


def _without(routes: dict[str, RouteConfig], route: str) -> dict[str, RouteConfig]:
    if route not in routes:
        raise ControlError("invalid", f"route {route!r} has no orders of its own")
    return {name: own for name, own in routes.items() if name != route}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name == "raises":
            flat |= {f"raises.{item['number']}": item for item in value}
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _bounds(band: str) -> tuple[int, int]:
    """Return from and to of a context band such as ``<256`` or ``512-1k``."""
    if band.startswith("<"):
        return 0, _tokens(band[1:])
    low, _, high = band.partition("-")
    return (_tokens(low), _tokens(high)) if high else (0, 0)


def _tokens(text: str) -> int:
    return int(text[:-1]) * _KIBI if text.endswith("k") else int(text)
