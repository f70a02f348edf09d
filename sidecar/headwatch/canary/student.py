"""The quantile of Student's t, in plain Python: the sidecar does not load SciPy for one number.

The distribution function by the continued fraction of the incomplete beta function (Numerical Recipes, 3rd edition, 6.4;
modified Lentz), inverted by bisection.  Agrees with tables to six digits.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, sqrt

_STEPS = 300
_TINY = 1e-300
_PRECISION = 1e-15


def upper_tail(value: float, freedom: int) -> float:
    """Return the probability that Student's t with *freedom* degrees exceeds *value*."""
    half = 0.5 * _beta_share(freedom / 2.0, 0.5, freedom / (freedom + value * value))
    return half if value >= 0 else 1.0 - half


def quantile(probability: float, freedom: int) -> float:
    """Return the value, a million at most, that Student's t with *freedom* degrees stays below with *probability* above ½."""
    if freedom < 1 or not 0.5 <= probability < 1.0:  # noqa: PLR2004 - the median
        raise ValueError(f"no quantile of probability {probability} with {freedom} degrees of freedom")
    low, high = 0.0, 1e6
    for _ in range(_STEPS):
        middle = sqrt(low * high) if low > 1.0 else (low + high) / 2.0
        if upper_tail(middle, freedom) > 1.0 - probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-9 * max(high, 1.0):
            break
    return high


def _beta_share(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for step in range(1, _STEPS):
        for term in (
            step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step)),
            -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1)),
        ):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
