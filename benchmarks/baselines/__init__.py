"""What a user could pick instead: baselines of the field, each a `Contender`, each tuned in the warm-up only.

Not product code. `BASELINES` makes one with given parameters, `make_baseline` one as it was tuned for a data set, `GRIDS` is
what tuning may choose from, `tune.tune` chooses; the choices and the command that made them lie in `tuned.json`.
Baselines that need a package of the extra `baselines` (implicit, river) import it when they are made.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.baselines.grids import GRIDS
from consumers.backtest.contender import Contender

TUNED = Path(__file__).with_name("tuned.json")


def _maker(module: str, kind: str, **fixed: Any) -> Callable[..., Contender]:
    def make(**parameters: Any) -> Contender:
        return getattr(importlib.import_module(f"benchmarks.baselines.{module}"), kind)(**{**fixed, **parameters})

    return make


BASELINES: dict[str, Callable[..., Contender]] = {
    "popularity_1h": _maker("popularity", "WindowPopularity", hours=1.0),
    "popularity_1d": _maker("popularity", "WindowPopularity", hours=24.0),
    "popularity_7d": _maker("popularity", "WindowPopularity", hours=168.0),
    "popularity_decayed": _maker("popularity", "DecayedPopularity"),
    "own_counts": _maker("own_counts", "OwnCounts"),
    # half a year of groceries shows what eight weeks of warm-up cannot
    "own_counts_90d": _maker("own_counts", "OwnCounts", name="own counts 90 d + popularity", half_life_days=90.0),
    "sequential_rules": _maker("rules", "SequentialRules"),
    "co_occurrence": _maker("cooccurrence", "CoOccurrence"),
    "vsknn": _maker("vsknn", "VSKNN"),
    "vstan": _maker("vstan", "VSTAN"),
    "isgd": _maker("isgd", "ISGD"),
    "raisgd": _maker("raisgd", "RAISGD"),
    "eals": _maker("eals", "EALS"),
    "ials_daily": _maker("ials", "DailyIALS", fold_in=False),
    "ials_daily_fold_in": _maker("ials", "DailyIALS", fold_in=True),
    "bpr_daily": _maker("bpr", "DailyBPR"),
    "biased_mf": _maker("biased_mf", "OnlineBiasedMF"),
}


def tuned_parameters(dataset: str) -> dict[str, dict[str, Any]]:
    """The parameters chosen in the warm-up of a data set, by baseline; empty for one that was never tuned."""
    known = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    return {name: choice["parameters"] for name, choice in known.get(dataset, {}).items()}


def make_baseline(name: str, dataset: str) -> Contender:
    """The baseline as tuned for a data set; its defaults where it was not."""
    return BASELINES[name](**tuned_parameters(dataset).get(name, {}))


__all__ = ["BASELINES", "GRIDS", "make_baseline", "tuned_parameters"]
