"""The protocols of the published rows on worlds whose right answers can be proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from benchmarks.transformer import ader, leave_one_out  # noqa: E402
from benchmarks.transformer.recipes import LeaveOneOut, Periods  # noqa: E402
from tests.models.transformer.worlds import QUICK, SMALL  # noqa: E402

TRAIN = replace(QUICK, epochs=30)


def rings(path: Path, sessions: range, items: int, extra: str = "") -> None:
    """Behind item i comes i + 1, in a ring; ids are not from 0 on."""
    lines = [f"{s} {100 + (s + k) % items}" for s in sessions for k in range(6)]
    path.write_text("\n".join(lines) + "\n" + extra)


def test_ader_tests_the_next_period_on_known_items_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "ader_toy"
    folder.mkdir()
    rings(folder / "period_0.txt", range(120), 10)
    # an unknown item is taken out of its session, a session of one known item is dropped
    rings(folder / "period_1.txt", range(200, 230), 10, "900 100\n900 555\n900 101\n901 102\n901 556\n")
    rings(folder / "period_2.txt", range(300, 320), 10)
    recipe = Periods("ader_toy", SMALL, TRAIN, replace(TRAIN, epochs=3), 1.0, {})

    def run(scratch: bool = False) -> list[dict[str, float]]:
        return ader.run(recipe, tmp_path, tmp_path / f"out_{scratch}", periods=2, fraction=1.0, tested=1.0, scratch=scratch, seed=1, progress=lambda now: None, say=lambda line: None)

    first = run()
    assert [found["n"] for found in first] == [30 * 5 + 1, 20 * 5] and [found["n_items"] for found in first] == [10, 12]
    # behind the first item of a session as well: only two of 151 places have another follower
    assert all(found["recall"] == 1.0 and found["mrr"] > 0.95 for found in first)
    (tmp_path / "out_False" / "test_2.json").unlink()
    assert [found["recall"] for found in run()] == [1.0, 1.0]  # from the weights it kept
    assert [found["recall"] for found in run(scratch=True)] == [1.0, 1.0]


def test_leave_one_out_takes_two_away_and_ranks_only_what_is_new(tmp_path: Path) -> None:
    """Everybody has all of ten items: at the test one is left, for the validation two."""
    (tmp_path / "toy.txt").write_text("".join(f"{u} {k}\n" for u in range(80) for k in (*np.roll(np.arange(8), -u).tolist(), 8, 9)))
    recipe = LeaveOneOut("toy.txt", SMALL, replace(QUICK, epochs=1), {})
    found = leave_one_out.run(recipe, tmp_path, tmp_path / "out", fraction=1.0, epochs=None, seed=1, progress=lambda now: None)
    assert found["n_items"] == 10 and found["test_ndcg"] == 1.0 and found["validation_ndcg"] >= 1 / np.log2(3)
    assert leave_one_out._without_last(leave_one_out.Sequences.of(np.zeros(4, int), np.arange(4)), 2).items.tolist() == [0, 1]
