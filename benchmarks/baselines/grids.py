"""What tuning may choose from: for every baseline its parameters and, of each, the values tried.

Tuning goes from the baseline's defaults through one parameter after the other, twice (see `tune`), so the values need not
multiply. Times are days of event time.
"""

from __future__ import annotations

import math
from typing import Any

SESSIONS = ("user", "basket")
_TAIL: dict[str, list[Any]] = {"popularity_weight": [1e-4, 1e-3, 1e-2, 0.1], "popularity_days": [0.5, 1.0, 3.0, 7.0, 14.0]}

_IALS: dict[str, list[Any]] = {
    "alpha": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0],
    "decay": [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0], "half_life_days": [3.0, 7.0, 14.0, 30.0, 90.0, 180.0, math.inf],
    "n_factors": [32, 64, 128],
}

GRIDS: dict[str, dict[str, list[Any]]] = {
    "popularity_1h": {},
    "popularity_1d": {},
    "popularity_7d": {},
    "popularity_decayed": {"half_life_days": [0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 14.0, 30.0]},
    "own_counts": {"half_life_days": [0.1, 1.0, 7.0, 30.0, 60.0, 90.0, 180.0, 360.0],
                   "popularity_weight": [0.01, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0], "popularity_days": [1.0, 3.0, 7.0, 14.0, 30.0]},
    "own_counts_90d": {},
    "sequential_rules": {"context": [1, 2, 3, 5, 10, 30], "fade": [0.3, 0.5, 0.7, 0.9, 1.0], "steps": [1, 2, 5, 10, 20],
                         "half_life_days": [3.0, 7.0, 14.0, 30.0, 60.0, math.inf], **_TAIL},
    "co_occurrence": {"session": ["user", "basket"], "context": [1, 3, 10, 30, 100], "fade": [0.5, 0.7, 0.9, 0.97, 1.0],
                      "half_life_days": [7.0, 30.0, 90.0, math.inf], **_TAIL},
    "vsknn": {"session": ["user", "basket"], "length": [5, 10, 20, 40, 80], "k": [50, 100, 200, 500, 1000, 2000],
              "m": [500, 1000, 2500, 5000, 10000], "idf_weight": [0.0, 1.0, 3.0, 10.0], **_TAIL},
    "vstan": {"session": ["user", "basket"], "length": [5, 10, 20, 40, 80], "place": [1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0],
              "age_days": [7.0, 20.0, 60.0, 180.0, math.inf], "near": [1.5, 3.0, 6.0, 12.0, 40.0],
              "before": [0.25, 0.5, 0.75, 1.0], "here": [0.5, 1.0, 1.5, 2.0, 3.0],
              "k": [100, 200, 500, 1500], "m": [1000, 2000, 5000, 10000],
              "idf_weight": [0.0, 0.5, 1.0, 3.0, 10.0], **_TAIL},
    "isgd": {"rate": [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8], "decay": [0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6], "deviation": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], "passes": [1, 3, 10, 30, 100],
             "n_factors": [16, 32, 64, 128]},
    "raisgd": {"rate": [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8], "decay": [0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6], "n_negatives": [1, 3, 10, 30, 100], "deviation": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
               "passes": [1, 3, 10, 30, 100], "both": [False, True],
               "n_factors": [16, 32, 64, 128]},
    "eals": {"missing": [0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "exponent": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
             "decay": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0], "new_weight": [1.0, 2.0, 4.0, 8.0], "sweeps": [0, 1, 2, 4],
             "n_factors": [16, 32, 64, 128]},
    "ials_daily": _IALS,
    "ials_daily_fold_in": _IALS,
    "bpr_daily": {"rate": [0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4], "decay": [0.0001, 0.001, 0.01, 0.03, 0.1, 0.3],
                  "iterations": [1, 2, 5, 10, 20, 40], "half_life_days": [3.0, 7.0, 30.0, 90.0, math.inf], "n_factors": [16, 32, 64, 128]},
    "biased_mf": {"rate": [0.003, 0.01, 0.02, 0.05, 0.1, 0.2], "decay": [0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
                  "n_negatives": [1, 2, 4, 8, 16], "deviation": [0.01, 0.03, 0.1, 0.3], "n_factors": [16, 32, 64, 128]},
}
