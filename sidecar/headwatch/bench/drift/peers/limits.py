"""The limits of the peers: what each null family alone would ask for, at one page a day and a baseline of one day.

A peer is run with the largest of them, which keeps all families to what headwatch promises.  ``headwatch bench drift --tune``
finds them anew (24 replicas of 128 heads, two days a family, seeds of their own).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS: Mapping[str, Mapping[str, float]] = {
    "three sigma": {
        "independent": 4.58, "correlated heads": 4.51, "AR .3": 4.56, "AR .6": 4.56, "AR .9": 4.7,
        "AR .9 with sampling noise": 4.59, "common slow factor": 4.66, "slow factor with signs": 4.63, "heavy tails": 25.12,
        "skewed tails": 10.97, "daily cycle": 4.55, "changing sampling rate": 8.81, "few rows": 14, "missing windows": 4.58,
    },
    "CUSUM": {
        "independent": 11.3, "correlated heads": 10.88, "AR .3": 19.27, "AR .6": 38.1, "AR .9": 178.67,
        "AR .9 with sampling noise": 88.96, "common slow factor": 77.53, "slow factor with signs": 80.2,
        "heavy tails": 24.95, "skewed tails": 17.17, "daily cycle": 43.98, "changing sampling rate": 48.74,
        "few rows": 18.51, "missing windows": 45.79,
    },
    "Page-Hinkley": {
        "independent": 109.16, "correlated heads": 93.84, "AR .3": 149.76, "AR .6": 219.28, "AR .9": 473.95,
        "AR .9 with sampling noise": 345.86, "common slow factor": 245.76, "slow factor with signs": 251.05,
        "heavy tails": 111.53, "skewed tails": 111.21, "daily cycle": 318.26, "changing sampling rate": 230.4,
        "few rows": 108.9, "missing windows": 230.15,
    },
    "ADWIN": {
        "independent": 4.42, "correlated heads": 3.42, "AR .3": 9.35, "AR .6": 21.28, "AR .9": 84.65,
        "AR .9 with sampling noise": 48.18, "common slow factor": 45.69, "slow factor with signs": 43.19,
        "heavy tails": 5.45, "skewed tails": 4.87, "daily cycle": 57.94, "changing sampling rate": 23.54, "few rows": 6.13,
        "missing windows": 28.44,
    },
    "KSWIN": {
        "independent": 12.06, "correlated heads": 12.06, "AR .3": 16.96, "AR .6": 25.53, "AR .9": 38.62,
        "AR .9 with sampling noise": 34.53, "common slow factor": 38.62, "slow factor with signs": 38.62,
        "heavy tails": 13.58, "skewed tails": 13.58, "daily cycle": 13.58, "changing sampling rate": 38.62,
        "few rows": 12.06, "missing windows": 25.53,
    },
    "PSI": {
        "independent": 0.64, "correlated heads": 0.63, "AR .3": 0.73, "AR .6": 1.16, "AR .9": 3.18,
        "AR .9 with sampling noise": 1.85, "common slow factor": 1.91, "slow factor with signs": 1.92, "heavy tails": 0.62,
        "skewed tails": 0.63, "daily cycle": 0.99, "changing sampling rate": 1.67, "few rows": 0.88,
        "missing windows": 1.28,
    },
    "Evidently": {
        "independent": 0.18, "correlated heads": 0.26, "AR .3": 0.2, "AR .6": 0.26, "AR .9": 0.5,
        "AR .9 with sampling noise": 0.36, "common slow factor": 1.18, "slow factor with signs": 1.17, "heavy tails": 0.19,
        "skewed tails": 0.17, "daily cycle": 0.49, "changing sampling rate": 0.56, "few rows": 0.29,
        "missing windows": 0.28,
    },
    "NannyML": {
        "independent": 5.32, "correlated heads": 5.27, "AR .3": 5.44, "AR .6": 6.02, "AR .9": 6.33,
        "AR .9 with sampling noise": 6.96, "common slow factor": 4.54, "slow factor with signs": 4.54, "heavy tails": 5.52,
        "skewed tails": 5.38, "daily cycle": 4.51, "changing sampling rate": 4.73, "few rows": 4.07,
        "missing windows": 6.09,
    },
}  # fmt: skip
