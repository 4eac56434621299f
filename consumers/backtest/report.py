"""What is written down of a backtest: `report.json` with every figure, `report.md` for people, `ranks.npz` to compare runs.

`ranks.npz` of one pass: `events` (T,) places in the log, the columns of `metrics.Units`, `names`, and `ranks` and `apart`
(n_contenders, T), so that contenders that were judged on different days can be compared target by target.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from consumers.backtest.metrics import VIEWS, difference, figures, over_time, period_mean, units_of, views
from consumers.backtest.protocol import Result

VERSION = 1
PERIOD_SHOWN = ("hr@20", "hr@10", "mrr@20", "mrr@10", "ndcg@10")
SHOWN = ("hr@10", "hr@20", "ndcg@10", "mrr@20", "recall@20", "hit@20")


def summary(result: Result, against: str | None = None) -> dict[str, Any]:
    """One pass as plain data; differences are taken against the contender of that name (default: none)."""
    log, plan, rules = result.log, result.plan, result.rules
    seconds = len(plan.targets)
    return {
        "v": VERSION,
        "log": {
            "name": log.name, "events": len(log), "users": log.n_users, "items": log.n_items, "baskets": len(plan.due),
            "first": _day(int(log.times_ms[0])), "last": _day(int(log.times_ms[-1])),
        },
        "rules": {
            **{name: value for name, value in vars(rules).items() if name != "target_types"},
            "target_types": sorted(rules.target_types),
        },
        "scored": {
            "targets": len(plan.targets), "baskets": len(plan.scored),
            "users": len(np.unique(log.users[plan.targets])), "first": _day(int(log.times_ms[plan.targets[0]])),
        },
        "contenders": {
            one.name: {
                "figures": figures(result, one),
                "lists": one.lists.figures(),
                "over_time": (bins := over_time(result, one)),
                "period_mean": period_mean(bins) if log.periods is not None else None,
                "speed": {
                    "rank_s": round(one.rank_s, 3), "learn_s": round(one.learn_s, 3),
                    "lists_per_s": round(len(plan.scored) / one.rank_s, 1) if one.rank_s else None,
                    "targets_per_s": round(seconds / (one.rank_s + one.learn_s), 1) if one.rank_s else None,
                },
                "about": one.about,
            }
            for one in result.judged
        },
        "differences": compare(result, against) if against else None,
    }


def compare(result: Result, against: str) -> dict[str, Any]:
    """Differences of every contender to the one named, by stratum and metric: [value, low, high, share]."""
    units = units_of(result)
    groups = {one.name: views(units, one.ranks, one.apart, result.rules.repeats) for one in result.judged}
    found: dict[str, Any] = {"against": against}
    for name, ours in groups.items():
        if name != against:
            found[name] = {
                stratum: difference(units, ranks, groups[against][stratum][1], within, seed=result.rules.seed)
                for stratum, (within, ranks) in ours.items()
            }
    return found


def save(folder: Path, passes: Sequence[tuple[str, Result, dict[str, Any]]], about: dict[str, Any]) -> None:
    """Write everything of these passes (label, result, summary) into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {**about, "passes": [{"label": label, **told} for label, _, told in passes]}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(report))
    for k, (_, result, _) in enumerate(passes):
        np.savez_compressed(
            folder / ("ranks.npz" if k == 0 else f"ranks-{k}.npz"), events=result.plan.targets, **units_of(result)._asdict(),
            names=[one.name for one in result.judged], ranks=np.stack([one.ranks for one in result.judged]),
            apart=np.stack([one.apart for one in result.judged]),
        )


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    parts = [f"# Backtest: {report['passes'][0]['log']['name']}", ""]
    for key in ("command", "machine", "versions"):
        if report.get(key):
            parts.append(f"- {key}: {report[key]}")
    for told in report["passes"]:
        log, scored = told["log"], told["scored"]
        parts += [
            "", f"## {told['label']}", "",
            f"{log['events']:,} events of {log['users']:,} users and {log['items']:,} items, {log['first']} to {log['last']}; "
            f"scored {scored['targets']:,} targets in {scored['baskets']:,} baskets of {scored['users']:,} users, from "
            f"{scored['first']} on.", "",
        ]
        for stratum in dict.fromkeys(s for c in told["contenders"].values() for s in c["figures"]):
            rows = [
                [name, *(f"{c['figures'][stratum][m]:.4f}" for m in SHOWN)]
                for name, c in told["contenders"].items() if stratum in c["figures"]
            ]
            n = next(c["figures"][stratum]["n"] for c in told["contenders"].values() if stratum in c["figures"])
            parts += [f"### {stratum} ({n:,} targets)", "", *([VIEWS[stratum] + ".", ""] if stratum in VIEWS else []), *table(["contender", *SHOWN], rows), ""]
        shown = list(next(iter(told["contenders"].values()))["lists"])
        parts += ["### What the lists are like", "", *table(["contender", *shown], [
            [name, *("" if c["lists"][s] is None else f"{c['lists'][s]:.3f}" for s in shown)] for name, c in told["contenders"].items()
        ]), ""]
        if all(c["period_mean"] for c in told["contenders"].values()):
            parts += ["### Mean over periods, each counting the same", "", *table(["contender", *PERIOD_SHOWN], [
                [name, *(f"{c['period_mean'][m]:.4f}" for m in PERIOD_SHOWN)] for name, c in told["contenders"].items()
            ]), ""]
        if told["differences"]:
            parts += _differences(told["differences"])
    return "\n".join(parts).rstrip() + "\n"


def _differences(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, by_stratum in found.items():
        if name == "against":
            continue
        for stratum, by_metric in by_stratum.items():
            rows.append([name, stratum, *(
                f"{value:+.4f} ({low:+.4f} to {high:+.4f}) {share:+.1%}" for value, low, high, share in (by_metric[m] for m in SHOWN)
            )])
    return [f"### Differences against {found['against']}, 95% by paired bootstrap over users", "",
            *table(["contender", "stratum", *SHOWN], rows), ""]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")
