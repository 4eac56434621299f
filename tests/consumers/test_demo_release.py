"""The training beside the demo: how it is started, what is said of it, and that none outlives it; without servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumers.demo.board import Board
from consumers.demo.gauges import Sample
from consumers.demo.renewal import NICENESS, Renewal, release_settings, why_none
from consumers.demo.scale import GROCERIES, demo_settings
from consumers.demo.screen import line
from infra.settings import Settings

ROOT = Path(__file__).parent.parent.parent
VERSION = "20261122T112000Z-3fa2c1"
PASSED = {"version": VERSION, "passed": True, "against": "popularity", "why": "better",
          "figures": {"candidate": {"ndcg@10": 0.05}, "popularity": {"ndcg@10": 0.03}, "not rounded": {"ndcg@10": 0.05}}}


def begun(tmp_path: Path, script: str, board: Board | None = None) -> Renewal:
    renewal = Renewal(release_settings(demo_settings(Settings()), tmp_path), tmp_path, board or Board(), 2)
    renewal.command = (sys.executable, "-c", script)
    renewal.start()
    return renewal


def settled(renewal: Renewal, wait_until: Callable[..., Any]) -> str:
    return str(wait_until(renewal.look, 30.0, "the training has ended"))


def test_it_yields_and_is_told_where_it_works(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "left").touch()
    script = "import os, json; print(json.dumps([os.nice(0), os.environ['OMP_NUM_THREADS'], os.environ['STREAMREC_TRAIN_FOLDER']]))"
    with begun(tmp_path, script):
        assert not (tmp_path / "trainer").exists(), "an earlier demo's log is of topics that are gone"
        said = wait_until(lambda: (tmp_path / "trainer.json").read_text(), 30.0, "it has said how it stands")
    assert json.loads(said) == [NICENESS, "1", str(tmp_path / "trainer")]


def test_the_swap_is_seen_when_all_workers_have_it(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    board = Board()
    with begun(tmp_path, f"print({json.dumps(json.dumps(PASSED))})", board) as renewal:
        assert renewal.look() is None and "is being trained: starting" in board.model
        wait_until(lambda: renewal.look() is None and "announced" in board.model, 30.0, "it is announced")
        board.sample = Sample(0.0, swaps=1)
        assert renewal.look() is None and "announced, but not yet in all workers" in renewal.outcome()
        board.sample, board.n_with_release = Sample(0.0, swaps=2), 7
        said = renewal.look()
        assert said is not None and f"{VERSION} is swapped into all 2 workers" in said and "0.050 against 0.030 of popularity" in said
        assert renewal.look() is None, "it is said once"
    assert "release 3fa2c1 in all workers for 0 s, 7 lists made with it" in line(board)


def test_what_the_gate_keeps_back_is_promoted_by_hand_and_said(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    board, kept = Board(), PASSED | {"passed": False}
    script = f"import sys; print(sys.argv[1:], file=sys.stderr); 'train' in sys.argv and print({json.dumps(json.dumps(kept))})"
    with begun(tmp_path, script, board) as renewal:
        board.sample = Sample(0.0, swaps=2)
        said = settled(renewal, wait_until)
    assert "is swapped into all 2 workers" in said and "the trainer's gate kept it back, and the demo promoted it by hand" in said
    done = (tmp_path / "trainer.log").read_text().splitlines()
    assert done == ["['train', '--once', '--json']",
                    f"['models', 'promote', '{VERSION}', '--store', '{tmp_path / 'trainer' / 'trainings' / VERSION / 'candidate'}']"]


def test_a_training_that_fails_is_said(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    board = Board()
    with begun(tmp_path, "import sys; print('no room on the disk', file=sys.stderr); sys.exit(1)", board) as renewal:
        assert "none came of the training: no room on the disk; its log is" in settled(renewal, wait_until) and "left no release" in board.model


def test_what_is_not_ready_at_the_end_is_ended(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    script = "import sys, time; print('2026 INFO infra.cli.train: learning: step 1 of 9', file=sys.stderr, flush=True); time.sleep(600)"
    with begun(tmp_path, script) as renewal:
        wait_until(lambda: renewal.look() is None and "learning" in renewal.outcome(), 30.0, "it learns")
        (child,) = [one for one in psutil.Process().children() if "time.sleep(600)" in " ".join(one.cmdline())]
        assert renewal.outcome().startswith("none was ready when the week ended, the training was at: learning;")
    began = time.monotonic()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert time.monotonic() - began < 1.0


def test_why_there_is_none_is_one_sentence() -> None:
    assert why_none(True) == "no release is trained beside it: this is the light demo"
    script = ("import importlib.util as u; find = u.find_spec\nu.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
              "from consumers.demo.renewal import why_none\nprint(why_none(False))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ('no release is trained beside it: training needs torch, which is not installed: pip install "streamrec[train]"; '
                                   "workers do not need that"), done.stderr


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    found = release_settings(demo_settings(Settings()), tmp_path)
    assert found.blend == GROCERIES["blend"] + ",transformer=0.1" and found.store() == str(tmp_path / "models")
    found = release_settings(demo_settings(Settings(train_model="d=16", blend="repeat=1,transformer=0", models_store="s3://ours/models")), tmp_path)
    assert (found.train_model, found.blend, found.store()) == ("d=16", "repeat=1,transformer=0", "s3://ours/models")
