"""Kinds of numbers and names that the sections share."""

from __future__ import annotations

from typing import Annotated

import msgspec

Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0)]
LAST_PORT = 65535
Port = Annotated[int, msgspec.Meta(ge=0, le=LAST_PORT)]
PrefillStride = Annotated[int, msgspec.Meta(ge=0)]
Detail = Annotated[int, msgspec.Meta(ge=0, le=4)]
RouteName = Annotated[str, msgspec.Meta(max_length=128)]
