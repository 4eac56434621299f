"""The page of quality: runs of different days are put together, and only where they scored the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines import BASELINES
from benchmarks.quality.measurements import MEASUREMENTS, OURS
from benchmarks.quality.render import BEGIN, END, N_DRAWN, PAGE, _by_period, _drawable, gather, render
from consumers.backtest.datasets import SETS, DataSet
from consumers.backtest.plan import Rules
from consumers.backtest.product import CHANNELS
from consumers.backtest.run import backtest
from tests.consumers.backtest.worlds import Counting, LastItem, random_world

ABOUT = {"command": "c", "machine": "m, load 1", "versions": "v"}


def saved(folder: Path, seed: int = 1) -> None:
    """Two runs of one measurement, as `run` keeps them; the product of the second is plain counting."""
    log = random_world(seed)
    for name, contender in (("vsknn", LastItem("vsknn")), ("product", Counting("product"))):
        backtest(DataSet(log), [contender], Rules(warmup=0.5)).save(folder / name, plots=False, **ABOUT)


def test_runs_are_put_together(tmp_path: Path) -> None:
    saved(tmp_path / "diginetica")
    found = gather(tmp_path / "diginetica")
    assert found is not None and set(found.told["contenders"]) == set(found.ranks) == {"vsknn", "product"}
    page = tmp_path / "quality.md"
    page.write_text(f"# Quality\n{BEGIN}\nOLD\n{END}\nafter\n")
    render(tmp_path, page)
    text = page.read_text()
    assert text.startswith("# Quality\n") and text.endswith("\nafter\n") and "OLD" not in text
    tables = (tmp_path / "quality" / "diginetica.md").read_text()
    assert "| **product** |" in tables and "| vsknn (baseline) |" in tables and "(quality/diginetica.md)" in text
    told = found.told["contenders"]
    assert f"| **product** | all | hr@20 | {told['product']['figures']['all']['hr@20']:.4f} | vsknn {told['vsknn']['figures']['all']['hr@20']:.4f} |" in text
    assert "- Measured on m; v" in text and "### completejourney" in text
    assert (tmp_path / "quality" / "diginetica" / "over_time.png").exists()


def test_what_went_by_other_rules_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "x")
    backtest(DataSet(random_world(1)), [LastItem("late")], Rules(warmup=0.6)).save(tmp_path / "x" / "late", plots=False, **ABOUT)
    found = gather(tmp_path / "x")
    assert found is not None and set(found.ranks) == {"vsknn", "product"}
    assert "other rules" in capsys.readouterr().err


def test_runs_of_several_samples_meet_in_the_smallest(tmp_path: Path) -> None:
    log = random_world(1)
    for name, sample in (("whole", 1.0), ("half", 0.5), ("again", 0.5)):
        report = backtest(DataSet(log), [LastItem(name)], Rules(warmup=0.5, sample=sample))
        report.save(tmp_path / "x" / name, plots=False, **ABOUT)
    found = gather(tmp_path / "x")
    assert found is not None and set(found.ranks) == {"whole", "half", "again"}
    assert found.told["rules"]["sample"] == 0.5 and len(found.units.users) == len(found.ranks["half"][0])
    for other in ("half", "again"):
        np.testing.assert_array_equal(found.ranks["whole"], found.ranks[other])


def test_what_is_measured_is_there() -> None:
    for name, measurement in MEASUREMENTS.items():
        assert measurement.dataset in SETS, name
        assert set(measurement.contenders) <= {"product", *CHANNELS, *BASELINES}, name
    assert set(OURS) <= {"product", *CHANNELS}
    assert BEGIN in PAGE.read_text() and END in PAGE.read_text()


def test_plots_hold_ours_and_the_best_baselines() -> None:
    told = {"contenders": {name: {"figures": {"all": {"ndcg@10": value}}} for value, name in enumerate(("mf", *BASELINES, "product"))}}
    drawn = list(_drawable(told)["contenders"])
    assert drawn == ["mf", *list(BASELINES)[-N_DRAWN:], "product"]


def test_the_fusion_is_held_against_its_best_channel_period_by_period() -> None:
    def judged(values: list[float], n: int = 10) -> dict[str, object]:
        return {"over_time": [{"period": k, "n": n, "ndcg@10": value} for k, value in enumerate(values)]}

    told = {"product": judged([0.5, 0.25]), "repeat": judged([0.25, 0.5]), "mf": judged([0.375, 0.125]), "vsknn": judged([0.75, 0.75])}
    assert "(repeat, mf, each alone): above 0 in 1 of 2 periods; least -0.2500, in period 1, to repeat." in _by_period(told, "ndcg@10")[0]
    assert _by_period({"product": told["product"], "repeat": judged([0.25, 0.5], 9)}, "ndcg@10") == []  # judged on other targets
