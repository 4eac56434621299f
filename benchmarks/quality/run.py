"""Runs one measurement for some contenders in one pass, and keeps report.json and ranks.npz in a folder of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._machine import machine, versions
from benchmarks.baselines import BASELINES, make_baseline
from benchmarks.quality.measurements import MEASUREMENTS
from consumers.backtest import datasets
from consumers.backtest.contender import Contender
from consumers.backtest.plan import Rules
from consumers.backtest.run import backtest, make_contenders, product_settings
from infra.settings import Settings


def run(
    name: str,
    contenders: Sequence[str],
    folder: Path,
    *,
    data: Path | None = None,
    label: str = "",
    sample: float = 1.0,
    audited: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Judge contenders by name - baselines as tuned for the set, the product, its channels, module:Name - and save the run."""
    measurement = MEASUREMENTS[name]
    loaded = datasets.load(measurement.dataset, data)
    rules = Rules(**{**loaded.rules, **measurement.rules, **({"sample": sample} if sample < 1 else {})})
    ours = [one for one in contenders if one not in BASELINES]
    made: dict[str, Contender] = dict(zip(ours, make_contenders(ours, product_settings(Settings(), loaded)), strict=True))
    for one in contenders:
        if one in BASELINES:
            made[one] = make_baseline(one, measurement.dataset)
            made[one].name = one  # tables name baselines alike on all sets
    report = backtest(loaded, [made[one] for one in contenders], rules, audited=audited, progress=progress)
    out = folder / name / (label or "+".join(contenders))[:120]
    command = ["python", "-m", "benchmarks.quality", "run", name, *contenders, *(["--sample", f"{sample:g}"] if sample < 1 else [])]
    report.save(out, plots=False, command=shlex.join(command), machine=machine(), versions=versions())
    return out
