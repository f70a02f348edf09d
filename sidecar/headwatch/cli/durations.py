"""Durations on a command line: ``90``, ``90s``, ``30m``, ``2h``, ``1d``."""

from __future__ import annotations

import argparse
import math
import re

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 366 * 86400.0


def duration(text: str) -> float:
    """Return *text* in seconds.

    Raises:
        argparse.ArgumentTypeError: It is none, is not positive, or is longer than a year.
    """
    found = re.fullmatch(r"([0-9.]+)([smhd]?)", text.strip())
    try:
        seconds = float(found[1]) * _SECONDS[found[2]] if found else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: give a duration up to a year, for example 90s, 30m, 2h or 1d")
    return seconds
