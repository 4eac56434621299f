"""What is measured: data sets, protocols, and who takes part unless somebody is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.baselines import BASELINES

OURS = ("product", "repeat", "covisitation", "popular_7d")


@dataclass(frozen=True)
class Measurement:
    """`title` as it stands on the page; `rules` over those that suit the set; `shown`: (stratum, metrics) of its tables, which
    are sorted by the last; `claimed`: metrics whose differences are told, with intervals."""

    dataset: str
    title: str
    rules: dict[str, Any] = field(default_factory=dict)
    contenders: tuple[str, ...] = (*OURS, *BASELINES)
    shown: tuple[tuple[str, tuple[str, ...]], ...] = (("all", ("hr@10", "ndcg@10", "mrr@20", "hr@20")),)
    claimed: tuple[str, ...] = ("hr@20", "mrr@20")
    period_means: bool = False


GROCERIES = tuple((stratum, ("hr@10", "mrr@20", "ndcg@10")) for stratum in ("all", "repeat", "new to user", "only new ranked", "all, two lists"))
BASKETS = tuple((stratum, ("hit@20", "recall@20")) for stratum in ("all", "new to user", "only new ranked"))
MEASUREMENTS: dict[str, Measurement] = {
    "completejourney": Measurement("completejourney", "Complete Journey, all baskets from week 9 on", shown=GROCERIES, claimed=("ndcg@10",)),
    "completejourney-baskets": Measurement(
        "completejourney", "Complete Journey, 3,000 baskets of the last tenth",
        {"sample_baskets": 3000, "warmup": 0.9, "score_periods": None}, shown=BASKETS, claimed=("hit@20", "recall@20"),
    ),
    "diginetica": Measurement("diginetica", "Diginetica, instant"),
    "diginetica-ader": Measurement("diginetica", "Diginetica, ADER's protocol", {"protocol": "ader"}, period_means=True),
    "yoochoose": Measurement("yoochoose", "YooChoose, instant"),
    "yoochoose-ader": Measurement("yoochoose", "YooChoose, ADER's protocol", {"protocol": "ader"}, period_means=True),
    "ml-1m": Measurement("ml-1m", "MovieLens-1M, last item of each user left out", contenders=("product", "mf", "ials_daily")),
}
