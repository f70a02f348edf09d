"""The limits of the peers: what each null family alone would ask for, at two pages a day and a baseline of one day.

A peer is run with the largest of them, which keeps all families.  Twice the promise is what headwatch's own worst cell is held
to.  ``headwatch bench drift --tune`` finds them anew (eight replicas of 128 heads, two days a family, seeds of their own).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS: Mapping[str, Mapping[str, float]] = {
    "three sigma": {
        "independent": 4.46, "correlated heads": 4.28, "AR .3": 4.56, "AR .6": 4.49, "AR .9": 4.59,
        "AR .9 with sampling noise": 4.56, "common slow factor": 4.24, "heavy tails": 21.59, "skewed tails": 10.51,
        "daily cycle": 4.42, "changing sampling rate": 9.12, "few rows": 11.79, "missing windows": 4.38,
    },
    "CUSUM": {
        "independent": 10.59, "correlated heads": 9.53, "AR .3": 18.41, "AR .6": 35.81, "AR .9": 158.55,
        "AR .9 with sampling noise": 85.79, "common slow factor": 44.94, "heavy tails": 21.58, "skewed tails": 17.25,
        "daily cycle": 39.92, "changing sampling rate": 45.51, "few rows": 16.25, "missing windows": 39.25,
    },
    "Page-Hinkley": {
        "independent": 80.23, "correlated heads": 70.16, "AR .3": 110.62, "AR .6": 159.32, "AR .9": 342.47,
        "AR .9 with sampling noise": 245.16, "common slow factor": 158.32, "heavy tails": 78.83,
        "skewed tails": 93.77, "daily cycle": 229.16, "changing sampling rate": 166.48, "few rows": 70.55,
        "missing windows": 157.73,
    },
    "ADWIN": {
        "independent": 3.85, "correlated heads": 3.36, "AR .3": 8.66, "AR .6": 19.41, "AR .9": 72.91,
        "AR .9 with sampling noise": 42.56, "common slow factor": 31.36, "heavy tails": 3.95, "skewed tails": 4.3,
        "daily cycle": 56.92, "changing sampling rate": 22.01, "few rows": 4.64, "missing windows": 25.72,
    },
    "KSWIN": {
        "independent": 12.05, "correlated heads": 12.05, "AR .3": 15.2, "AR .6": 25.52, "AR .9": 38.61,
        "AR .9 with sampling noise": 31.13, "common slow factor": 31.13, "heavy tails": 12.05, "skewed tails": 10.65,
        "daily cycle": 12.05, "changing sampling rate": 34.52, "few rows": 12.05, "missing windows": 25.52,
    },
    "PSI": {
        "independent": 0.59, "correlated heads": 0.58, "AR .3": 0.66, "AR .6": 1.05, "AR .9": 3.06,
        "AR .9 with sampling noise": 1.77, "common slow factor": 1.3, "heavy tails": 0.61, "skewed tails": 0.59,
        "daily cycle": 0.94, "changing sampling rate": 1.58, "few rows": 0.81, "missing windows": 1.25,
    },
    "Evidently": {
        "independent": 0.17, "correlated heads": 0.23, "AR .3": 0.2, "AR .6": 0.26, "AR .9": 0.5,
        "AR .9 with sampling noise": 0.35, "common slow factor": 0.89, "heavy tails": 0.19, "skewed tails": 0.16,
        "daily cycle": 0.48, "changing sampling rate": 0.56, "few rows": 0.23, "missing windows": 0.27,
    },
    "NannyML": {
        "independent": 5.21, "correlated heads": 4.41, "AR .3": 4.81, "AR .6": 5.15, "AR .9": 6.17,
        "AR .9 with sampling noise": 5.77, "common slow factor": 3.26, "heavy tails": 5.21, "skewed tails": 5.55,
        "daily cycle": 3.91, "changing sampling rate": 4.08, "few rows": 4.05, "missing windows": 5.05,
    },
}  # fmt: skip
