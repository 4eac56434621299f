"""docs/quality.md from runs: differences to the best baseline with intervals, what was tuned; and a page of tables and plots for each measurement.

Reads every run below a folder; of a contender that was run twice the later counts. Runs of one measurement are compared on
the targets that all of them scored; those by other rules are left out with a word. Plots show each run's own targets.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import BASELINES, TUNED
from benchmarks.quality.measurements import MEASUREMENTS, Measurement
from consumers.backtest.metrics import Units, Values, difference, views
from consumers.backtest.plots import draw
from consumers.backtest.report import table

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
BEGIN, END = "<!-- figures: written by `python -m benchmarks.quality render` -->", "<!-- end of figures -->"
PRODUCT = "product"
#: Ours, and what it is held against: everything, or what is of its kind.
RIVALS = {PRODUCT: tuple(BASELINES), "mf": ("isgd", "raisgd", "eals", "ials_daily", "ials_daily_fold_in", "bpr_daily", "biased_mf")}
N_DRAWN = 6  # baselines in a plot beside ours, the best
MEANS = ("hr@20", "hr@10", "mrr@20", "mrr@10")


@dataclass
class Gathered:
    """All runs of one measurement put together."""

    told: dict[str, Any]  # one pass, with the contenders of all runs
    units: Units  # of the targets that all of them scored
    ranks: dict[str, tuple[np.ndarray, np.ndarray]]  # in all, and apart, by contender
    commands: list[str]
    machines: list[str]

    def views(self, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(targets, ranks) of a contender by stratum."""
        return views(self.units, *self.ranks[name], self.told["rules"]["repeats"])


def gather(folder: Path) -> Gathered | None:
    """The runs below a measurement's folder, oldest first; None where there is none.

    Samples of a larger share hold those of a smaller one, so runs of several shares meet in the smallest.
    """
    runs: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = []
    for path in sorted(folder.glob("*/report.json"), key=lambda path: path.stat().st_mtime):
        report = json.loads(path.read_text())
        if runs and _rules(report) != _rules(runs[0][0]):
            print(f"{path} went by other rules than the runs before and is left out; run it again by the same", file=sys.stderr)
            continue
        runs.append((report, dict(np.load(path.with_name("ranks.npz")))))
    if not runs:
        return None
    latest = {str(name): k for k, (_, saved) in enumerate(runs) for name in saved["names"]}
    runs = [run for k, run in enumerate(runs) if k in latest.values()]  # a run whose contenders were all run again is over
    common = functools.reduce(np.intersect1d, (saved["events"] for _, saved in runs))
    smallest = min(runs, key=lambda run: len(run[1]["events"]))
    found = Gathered(smallest[0]["passes"][0], Units(*(smallest[1][name][np.isin(smallest[1]["events"], common)] for name in Units._fields)),
                     {}, [], [])
    for report, saved in runs:
        kept = np.isin(saved["events"], common)
        found.told["contenders"] |= report["passes"][0]["contenders"]
        found.ranks |= {str(n): (saved["ranks"][k][kept], saved["apart"][k][kept]) for k, n in enumerate(saved["names"])}
        found.commands.append(report["command"])
        found.machines.append(f"{report['machine'].partition(', load')[0]}; {report['versions']}")
    return found


def _rules(report: dict[str, Any]) -> dict[str, Any]:
    """What must be the same; a rule that an older run knew nothing of was none."""
    return {name: value for name, value in report["passes"][0]["rules"].items() if name != "sample" and value is not None}


def page_of(name: str, measurement: Measurement, found: Gathered, folder: Path) -> list[str]:
    """Writes all tables and plots of a measurement into `folder`; returns what is to be said of it on the page before."""
    contenders, scored, log = found.told["contenders"], found.told["scored"], found.told["log"]
    share, groups = found.told["rules"]["sample"], {name: found.views(name) for name in found.ranks}
    said = [f"## {measurement.title}", "", f"{log['events']:,} events, {log['users']:,} users, {log['items']:,} items; scored "
             f"{scored['targets']:,} targets in {scored['baskets']:,} baskets of {scored['users']:,} users, from {scored['first']} on"
             f"{f', a sample of {share:.0%} of the baskets' if share < 1 else ''}.", "", *_against_the_best(found, measurement)]
    said += _by_period(contenders, measurement.claimed[0])
    lines = [f"# {measurement.title}", "", f"Written by `python -m benchmarks.quality render`; how it is measured stands in [quality](../{folder.name}.md).", ""]
    for stratum, metrics in measurement.shown:
        if stratum not in groups[next(iter(groups))]:
            continue
        rows = [(n, [_mean(found, groups[n][stratum], m) for m in metrics]) for n in groups]
        rows.sort(key=lambda row: -row[1][-1])
        lines += [f"## {stratum} ({int(groups[rows[0][0]][stratum][0].sum()):,} targets)", "",
                  *table(["contender", *metrics], [[_shown(n), *(f"{value:.4f}" for value in values)] for n, values in rows]), ""]
    if measurement.period_means:
        means = {n: c["period_mean"] for n, c in contenders.items() if c["period_mean"]}
        said += ["### Mean over the tests of all periods, in percent", "", *table(["contender", *MEANS], [
            [_shown(n), *(f"{100 * m[k]:.2f}" for k in MEANS)] for n, m in sorted(means.items(), key=lambda row: -row[1]["hr@20"])]), ""]
    drawn = folder / name
    drawn.mkdir(parents=True, exist_ok=True)
    lines += [f"![{path.stem.replace('_', ' ')}]({path.relative_to(folder)})" for path in draw(drawn, [("", _drawable(found.told))])]
    lines += ["", *(f"- `{command}`" for command in dict.fromkeys(found.commands))]
    (folder / f"{name}.md").write_text("\n".join(lines).rstrip() + "\n")
    return [*said, f"[All tables and plots]({folder.name}/{name}.md)", ""]


def _drawable(told: dict[str, Any]) -> dict[str, Any]:
    """What a plot can hold: ours and the best baselines."""
    contenders = told["contenders"]
    baselines = sorted((n for n in contenders if n in BASELINES), key=lambda n: -contenders[n]["figures"]["all"]["ndcg@10"])
    left_out = set(baselines[N_DRAWN:])
    return told | {"contenders": {n: c for n, c in contenders.items() if n not in left_out}}


def _against_the_best(found: Gathered, measurement: Measurement) -> list[str]:
    """Ours less the best rival, by stratum and claimed metric; the best is who is best there, by what was scored."""
    rows = []
    for ours, rivals in RIVALS.items():
        present = [n for n in rivals if n in found.ranks]
        if ours not in found.ranks or not present:
            continue
        groups = {n: found.views(n) for n in (ours, *present)}
        for stratum, metric in ((s, m) for s, shown in measurement.shown for m in measurement.claimed if m in shown):
            if stratum not in groups[ours]:
                continue
            figures = {n: _mean(found, groups[n][stratum], metric) for n in groups}
            best = max(present, key=lambda n: figures[n])
            within, ranks = groups[ours][stratum]
            d = difference(found.units, ranks, groups[best][stratum][1], within, [metric])[metric]
            rows.append([_shown(ours), stratum, metric, f"{figures[ours]:.4f}", f"{best} {figures[best]:.4f}",
                         f"{d.share:+.1%}", f"{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"])
    head = ["", "of", "metric", "ours", "best rival", "relative", "difference (95%)"]
    return [*table(head, rows), "", "The product's rivals are all baselines, those of `mf` alone are the other factor models.", ""] if rows else []


def _by_period(contenders: dict[str, Any], metric: str) -> list[str]:
    """Whether the fusion lost to one of its channels in any period: a sentence, or nothing where no channel was judged on the same targets."""
    over_time = {n: {row["period"]: row for row in one["over_time"]} for n, one in contenders.items() if n not in BASELINES}
    ours = over_time.pop(PRODUCT, {})
    alone = [n for n, rows in over_time.items() if rows.keys() == ours.keys() and all(rows[p]["n"] == ours[p]["n"] for p in ours)]
    if not alone or not ours:
        return []
    ahead = {p: ours[p][metric] - max(over_time[n][p][metric] for n in alone) for p in ours}
    least = min(ahead, key=lambda p: ahead[p])
    best = max(alone, key=lambda n: over_time[n][least][metric])
    return [f"Period by period, {metric} of the fusion less that of the best of its channels ({', '.join(alone)}, each alone): above 0 in "
            f"{sum(value > 0 for value in ahead.values())} of {len(ahead)} periods; least {ahead[least]:+.4f}, in period {least}, to {best}.", ""]


def _choices() -> list[str]:
    """Which parameters the baselines have, by data set."""
    lines = ["## What the baselines were given", "", "Chosen in the warm-up alone, by its last third (`python -m benchmarks.baselines.tune`);"
             " what is not named has its default, and so has a baseline that is not named. Objective: NDCG@10 of groceries, R@20 + MRR@20 of sessions.", ""]
    for dataset, chosen in json.loads(TUNED.read_text()).items():
        rows = [[name, "`" + ", ".join(f"{k}={v}" for k, v in one["parameters"].items()) + "`", f"{one['value']:.4f}",
                 f"{one['n_tried']} on {one['n_scored']:,} targets", ", ".join(one.get("at_end", []))] for name, one in chosen.items()]
        lines += [f"### {dataset}", "", *table(["baseline", "parameters", "objective", "tried", "at the end of its values"], rows), ""]
    return lines


def _mean(found: Gathered, group: tuple[np.ndarray, np.ndarray], metric: str) -> float:
    within, ranks = group
    return float(Values(found.units, ranks).of(metric, within)[0].mean())


def _shown(name: str) -> str:
    return f"{name} (baseline)" if name in BASELINES else f"**{name}**" if name == PRODUCT else name


def render(folder: Path, page: Path = PAGE) -> None:
    """Write what stands between the page's marks; the rest, and measurements that were not run, stay as they are not."""
    lines: list[str] = []
    machines: dict[str, None] = {}
    for name, measurement in MEASUREMENTS.items():
        if (found := gather(folder / name)) is not None:
            lines += page_of(name, measurement, found, page.parent / "quality")
            machines |= dict.fromkeys(found.machines)
    lines += [*_choices(), *(f"- Measured on {one}" for one in machines)]
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(lines).rstrip() + f"\n{END}{rest.partition(END)[2]}")
