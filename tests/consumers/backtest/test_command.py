"""`streamrec backtest` from end to end on a small file, and its mistakes, each one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.cli.entry import main

ROOT = Path(__file__).parents[3]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def streamrec(tmp_path: Path) -> Run:
    """Runs the command in an empty folder with a log of 600 rows."""
    rng = np.random.default_rng(0)
    lines = [f"u{rng.integers(20)},i{min(rng.geometric(0.1), 40)},{1_700_000_000 + 3600 * k}" for k in range(600)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *lines]))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
        return subprocess.run([sys.executable, "-m", "infra.cli", "backtest", *args], capture_output=True, text=True, timeout=240,
                              cwd=tmp_path, env={**inherited, "STREAMREC_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)})

    return run


def test_a_report_of_a_file(streamrec: Run, tmp_path: Path) -> None:
    done = streamrec("log.csv", "--contender", "product", "--contender", "popular_7d", "--against", "popular_7d", "--audit",
                     "--protocol", "lagged", "--lag", "1h,1d", "--out", "report")
    assert done.returncode == 0, done.stderr
    assert "the first ten of the product's lists hold" in done.stdout and "what is popular (popular_7d)" in done.stdout
    assert "lists of each contender stayed the same" in done.stdout and "product against popular_7d, all: NDCG@10" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [told["label"] for told in report["passes"]] == ["instant", "lagged by 1h", "lagged by 1d"]
    for told in report["passes"]:
        figures = told["contenders"]["product"]["figures"]
        assert figures["all"]["n"] == told["scored"]["targets"] == figures["repeat"]["n"] + figures["new to user"]["n"]
        assert 0 < figures["all"]["ndcg@10"] < figures["all"]["hr@10"] < figures["all"]["hr@50"] <= 1
        assert set(told["differences"]["product"]["all"]) >= {"ndcg@10", "hr@10"}
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.md", "ranks.npz", "over_time.png", "by_history.png", "by_item_age.png", "coverage.png", "by_lag.png"} <= names
    ranks = np.load(tmp_path / "report" / "ranks.npz")
    assert ranks["ranks"].shape == (2, report["passes"][0]["scored"]["targets"]) == ranks["apart"].shape
    assert "| product |" in (tmp_path / "report" / "report.md").read_text()


def test_it_is_the_same_twice(streamrec: Run) -> None:
    def figures() -> object:
        told = json.loads(streamrec("log.csv", "--json", "--contender", "product", "--sample", "0.5").stdout)
        return told["passes"][0]["contenders"]["product"]["figures"]

    assert figures() == figures()


@pytest.mark.parametrize(("args", "said"), [
    (("nothing",), "neither a file nor a data set; sets are completejourney"),
    (("nothing.csv",), "is not a file that can be read"),
    (("diginetica",), "--data FOLDER"),
    (("diginetica", "--data", "nowhere"), "--data nowhere is no folder"),
    (("completejourney", "--user", "x"), "--user is for files"),
    (("log.csv", "--contender", "magic"), "'magic' is no contender; there are product, repeat"),
    (("log.csv", "--contender", "json:nothing"), "cannot be made"),
    (("log.csv", "--contender", "json:JSONDecoder"), "lacks name, start, rank, learn"),
    (("log.csv", "--contender", "product", "--against", "x"), "differences are asked for against 'x'; judged are product"),
    (("log.csv", "--lag", "1h"), "--lag is for --protocol lagged"),
    (("log.csv", "--protocol", "lagged"), "needs --lag"),
    (("log.csv", "--protocol", "lagged", "--lag", "soon"), "'soon' is no span of time"),
    (("log.csv", "--protocol", "lagged", "--lag", "infd"), "'infd' is no span of time"),
    (("log.csv", "--protocol", "lagged", "--lag", "1e300d"), "no span that can pass"),
    (("log.csv", "--protocol", "lagged", "--lag=-1h"), "no span that can pass"),
    (("log.csv", "--protocol", "periodic", "--period", "0h"), "no span that can pass"),
    (("log.csv", "--seed", "-1"), "--seed -1 is negative"),
    (("log.csv", "--protocol", "ader"), "has no periods"),
    (("log.csv", "--period", "1d"), "--period is for --protocol periodic"),
    (("log.csv", "--warmup", "1.5"), "--warmup 1.5 is no share"),
    (("log.csv", "--score-periods", "a-b"), "names no periods"),
    (("log.csv", "--targets", "buying"), "--targets names buying"),
    (("log.csv", "--targets", "dislike"), "speaks for no item"),
    (("log.csv", "--sample-baskets", "100000"), "100,000 baskets are to be drawn"),
    (("log.csv", "--default-type", "buying"), "none of view, click"),
])
def test_mistakes_end_in_one_sentence(streamrec: Run, tmp_path: Path, args: tuple[str, ...], said: str,
                                      monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)  # in this process: starting one for each takes longer than all of them
    assert main(["backtest", *args]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and said in error


def test_a_file_of_ratings(streamrec: Run, tmp_path: Path) -> None:
    rows = (tmp_path / "log.csv").read_text().splitlines()[1:]
    lines = ["user,item,time,stars", *(f"{row},{1 + k % 5}" for k, row in enumerate(rows))]
    (tmp_path / "ratings.csv").write_text("\n".join(lines))

    def targets(*args: str) -> int:
        done = streamrec("ratings.csv", "--value", "stars", "--contender", "popular", "--json", "--warmup", "0.5", *args)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["passes"][0]["scored"]["targets"])

    assert targets() == 300, "purchases, whatever they carry"
    assert targets("--default-type", "rating") == 180, "of 1 to 5 stars, those of 3 and more"
