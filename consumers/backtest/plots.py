"""Plots of a report, as PNG: quality over time, by user history, by item age, coverage against quality, quality against lag."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

METRIC = "ndcg@10"
HISTORY = ("history 0", "history 1-4", "history 5-19", "history 20+")
AGE = ("item < 1 d", "item < 7 d", "item older")


def draw(folder: Path, passes: Sequence[tuple[str, dict[str, Any]]]) -> list[Path]:
    """Draw what can be drawn of these passes (label, summary); returns the files."""
    told = passes[0][1]
    drawn = [
        _over_time(folder / "over_time.png", told),
        _by(folder / "by_history.png", told, HISTORY, "events of the user before"),
        _by(folder / "by_item_age.png", told, AGE, "age of the item"),
        _coverage(folder / "coverage.png", told),
    ]
    if len(passes) > 1:
        drawn.append(_by_lag(folder / "by_lag.png", passes))
    return drawn


def _over_time(path: Path, told: dict[str, Any]) -> Path:
    figure, axes = _axes(f"{METRIC} over time", "", METRIC)
    for name, contender in told["contenders"].items():
        bins = contender["over_time"]
        times = [datetime.fromtimestamp(b["start_ms"] / 1000, UTC) for b in bins]
        axes.plot(times, [b[METRIC] for b in bins], marker=".", label=name)
    figure.autofmt_xdate()
    return _save(figure, axes, path)


def _by(path: Path, told: dict[str, Any], strata: Sequence[str], what: str) -> Path:
    figure, axes = _axes(f"{METRIC} by {what}", what, METRIC)
    names = list(told["contenders"])
    shown = [s for s in strata if any(s in told["contenders"][name]["figures"] for name in names)]
    width = 0.8 / max(1, len(names))
    for k, name in enumerate(names):
        figures = told["contenders"][name]["figures"]
        places = [i + (k - (len(names) - 1) / 2) * width for i in range(len(shown))]
        axes.bar(places, [figures.get(s, {}).get(METRIC, 0.0) for s in shown], width, label=name)
    n = {s: next((told["contenders"][name]["figures"][s]["n"] for name in names if s in told["contenders"][name]["figures"]), 0) for s in shown}
    axes.set_xticks(range(len(shown)), [f"{s.partition(' ')[2]}\n(n = {n[s]:,})" for s in shown])
    return _save(figure, axes, path)


def _coverage(path: Path, told: dict[str, Any]) -> Path:
    figure, axes = _axes("coverage against quality", "coverage@10: share of the items seen so far that some list showed", METRIC)
    for name, contender in told["contenders"].items():
        axes.scatter([contender["lists"]["coverage@10"]], [contender["figures"]["all"][METRIC]], label=name)
    return _save(figure, axes, path)


def _by_lag(path: Path, passes: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    figure, axes = _axes(f"{METRIC} by how far the state is behind", "lag", METRIC)
    for name in passes[0][1]["contenders"]:
        axes.plot(range(len(passes)), [told["contenders"][name]["figures"]["all"][METRIC] for _, told in passes], marker="o", label=name)
    axes.set_xticks(range(len(passes)), [label.removeprefix("lagged by ") for label, _ in passes])
    return _save(figure, axes, path)


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> Path:
    axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), fontsize="small", ncols=5, loc="outside lower center")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
