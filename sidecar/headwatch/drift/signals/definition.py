"""What a signal of retrieval is: one definition each, from which docs, detectors and pages take name, scale and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal[-1, 0, 1]


@dataclass(frozen=True, slots=True)
class SignalDefinition:
    """A figure of the requests of one scope in one window: the mean over the requests that define it."""

    name: str
    """A name that ends in a dot is a family: one signal for each word that follows, for example each source."""
    floor: float
    """The smallest standard deviation of a window's mean that is believed: a signal that never moved is no finer than this."""
    direction: Direction
    """Which way is bad: 1 more, -1 less, 0 either."""
    unit: str
    what: str
    """The formula, for one request."""
    blind: str
    """What it cannot tell."""
    source: str = ""
    """Where the idea is from."""
    of_window: bool = False
    """Whether it is the largest of the window's requests instead of their mean."""
    counted: bool = False
    """Whether it is counted or labelled, and not read from attention: it may jump from none to all, and then pages soon."""
    banded: bool = False
    """Whether it is compared only among requests whose instructions and question are of about the same length."""
