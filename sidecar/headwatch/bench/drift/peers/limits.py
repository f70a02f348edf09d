"""The limits of the peers: what each null family alone would ask for, at one page a day and a baseline of one day.

A peer is run with the largest of them, which keeps all families to what headwatch promises.  ``headwatch bench drift --tune``
finds them anew (eight replicas of 128 heads, two days a family, seeds of their own).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS: Mapping[str, Mapping[str, float]] = {
    "three sigma": {
        "independent": 4.5, "correlated heads": 4.54, "AR .3": 4.84, "AR .6": 4.68, "AR .9": 4.67,
        "AR .9 with sampling noise": 4.78, "common slow factor": 4.51, "heavy tails": 22.79, "skewed tails": 12.22,
        "daily cycle": 4.52, "changing sampling rate": 9.96, "few rows": 13.62, "missing windows": 4.54,
    },
    "CUSUM": {
        "independent": 11.08, "correlated heads": 10.63, "AR .3": 19.35, "AR .6": 40.76, "AR .9": 198.54,
        "AR .9 with sampling noise": 91.62, "common slow factor": 69.33, "heavy tails": 24.69, "skewed tails": 18.64,
        "daily cycle": 43.03, "changing sampling rate": 48.94, "few rows": 20.33, "missing windows": 41.64,
    },
    "Page-Hinkley": {
        "independent": 109.38, "correlated heads": 96.51, "AR .3": 153.15, "AR .6": 223.34, "AR .9": 490.39,
        "AR .9 with sampling noise": 350.82, "common slow factor": 233.31, "heavy tails": 108.58, "skewed tails": 121.43,
        "daily cycle": 316, "changing sampling rate": 241.9, "few rows": 111.34, "missing windows": 235.58,
    },
    "ADWIN": {
        "independent": 4.23, "correlated heads": 3.53, "AR .3": 9.18, "AR .6": 20.74, "AR .9": 95.35,
        "AR .9 with sampling noise": 52.56, "common slow factor": 39.28, "heavy tails": 5.35, "skewed tails": 5.09,
        "daily cycle": 57.22, "changing sampling rate": 25.05, "few rows": 6.24, "missing windows": 29.71,
    },
    "KSWIN": {
        "independent": 12.06, "correlated heads": 12.06, "AR .3": 16.96, "AR .6": 28.18, "AR .9": 38.62,
        "AR .9 with sampling noise": 38.62, "common slow factor": 34.53, "heavy tails": 12.06, "skewed tails": 12.06,
        "daily cycle": 13.58, "changing sampling rate": 38.62, "few rows": 12.06, "missing windows": 28.18,
    },
    "PSI": {
        "independent": 0.65, "correlated heads": 0.62, "AR .3": 0.68, "AR .6": 1.15, "AR .9": 3.19,
        "AR .9 with sampling noise": 1.92, "common slow factor": 1.63, "heavy tails": 0.63, "skewed tails": 0.62,
        "daily cycle": 0.98, "changing sampling rate": 1.65, "few rows": 0.87, "missing windows": 1.27,
    },
    "Evidently": {
        "independent": 0.18, "correlated heads": 0.26, "AR .3": 0.2, "AR .6": 0.27, "AR .9": 0.51,
        "AR .9 with sampling noise": 0.35, "common slow factor": 1, "heavy tails": 0.19, "skewed tails": 0.17,
        "daily cycle": 0.49, "changing sampling rate": 0.57, "few rows": 0.29, "missing windows": 0.28,
    },
    "NannyML": {
        "independent": 5.31, "correlated heads": 5.24, "AR .3": 5.17, "AR .6": 5.47, "AR .9": 6.39,
        "AR .9 with sampling noise": 6.47, "common slow factor": 3.48, "heavy tails": 5.81, "skewed tails": 6.01,
        "daily cycle": 4.28, "changing sampling rate": 4.66, "few rows": 4.14, "missing windows": 6.12,
    },
}  # fmt: skip
