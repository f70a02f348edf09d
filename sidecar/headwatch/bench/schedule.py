"""In which order the arms take turns.

A cycle is an order of all arms and the same order backwards: A B C D D C B A.  So every arm's mean place in the cycle is
the same, and whatever rises or falls steadily over a cycle (the context grows, a processor warms up) is shared by all.
The order is drawn anew for each cycle, so that no arm always follows the same one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def cycle(arms: Sequence[str], number: int) -> list[str]:
    """Return the turns of cycle *number*: the same for the same arms and number."""
    order = list(arms)
    random.Random(number).shuffle(order)  # noqa: S311 - an order, no secret
    return order + order[::-1]
