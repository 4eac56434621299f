"""A release of the trained model, made beside the live week by the command that users have, and what is to be seen of it.

In: settings, a folder. Out: one `streamrec train --once`, and on the board what it is at, then for how long lists are made with its
release. It yields to everything else - lowest priority, one thread - so that the freshness that is shown is that of the workers.
What is learned in half a minute may not pass the gate: then that is said, and it is promoted by hand, as an operator may.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consumers.demo import stage
from consumers.demo.board import Board
from consumers.demo.scale import RELEASE, RELEASE_PRIOR
from consumers.trainer.learning import TrainerError, check_packages
from infra.settings import Settings
from infra.stack.process import die_with_parent
from infra.stack.workers import ROOT

NICENESS = 19
#: What the libraries of a training ask how many threads they may have.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
STOP_DEADLINE_S = 10.0  # some steps of learning, and the good-bye to a consumer group for which the next training would wait
#: The logger whose lines tell what a training is at.
TELLER = " infra.cli.train: "


def why_none(light: bool) -> str | None:
    """Why no release can be trained, in a sentence; None: one can."""
    if light:
        return "no release is trained beside it: this is the light demo"
    try:
        check_packages()
    except TrainerError as error:
        return f"no release is trained beside it: {error}"
    return None


def release_settings(settings: Settings, folder: Path) -> Settings:
    """The same with a small release of the demo's own, in its folder, that has a say in lists; what the user has set stays."""
    plain = {field.name: field.default for field in dataclasses.fields(Settings)}
    chosen: dict[str, Any] = {"train_folder": str(folder / "trainer"), "models_store": str(folder / "models"), **RELEASE}
    chosen = {name: value for name, value in chosen.items() if getattr(settings, name) == plain[name]}
    if "transformer" not in settings.blend_weights():
        chosen["blend"] = f"{settings.blend},transformer={RELEASE_PRIOR:g}"
    return dataclasses.replace(settings, **chosen)


class Renewal:
    """One training beside the demo. Use it as a context manager, `start` it, `look` now and then; `outcome` says what became of it."""

    #: How `streamrec` is called.
    command: Sequence[str] = (sys.executable, "-m", "infra.cli")

    def __init__(self, settings: Settings, folder: Path, board: Board, n_workers: int) -> None:
        self._settings, self._folder, self._board, self._n_workers = settings, folder, board, n_workers
        self.log_file = folder / "trainer.log"
        self._result_file = folder / "trainer.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = self._trained_s = self._swapped_s = 0.0
        self._told: dict[str, Any] | None = None  # what the command said at its end
        self._failed = ""
        self._ended = self._said = False

    def start(self) -> None:
        """Train on what the topic holds now. Call it in the main thread: the training dies with the thread that began it."""
        for left in (self._settings.trainer_folder(), Path(self._settings.store())):
            if left.is_relative_to(self._folder):  # an earlier demo's; what the user has named is his
                shutil.rmtree(left, ignore_errors=True)
        self._began_s = time.monotonic()
        self._process = self._run("wb", "train", "--once", "--json")

    def _run(self, mode: str, *args: str) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with self.log_file.open(mode) as log, self._result_file.open("wb") as result:
            return subprocess.Popen(
                [*self.command, *args], stdin=subprocess.DEVNULL, stdout=result, stderr=log, start_new_session=True, preexec_fn=_yielding,
                env={**inherited, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path, **self._settings.environment()})

    def look(self) -> str | None:
        """Bring the board up to date; the outcome, once, when there is one."""
        if self._process is None:
            return None
        if not self._failed and not self._ended and (code := self._process.poll()) is not None:
            self._next(code)
        if not self._swapped_s and self._board.sample.swaps >= self._n_workers:
            self._swapped_s = time.monotonic()
        self._board.model = self._model()
        if self._said or not (self._failed or (self._ended and self._swapped_s)):
            return None
        self._said = True
        return self.outcome()

    @property
    def pending(self) -> bool:
        """Whether something may still come of it."""
        return self._process is not None and not self._said

    def _next(self, code: int) -> None:
        """A command has ended: read what it says, and promote what the gate has kept back."""
        if code != 0:
            said = self.log_file.read_text(errors="replace").strip().splitlines()
            self._failed = f"none came of the training: {said[-1] if said else f'code {code}'}; its log is {self.log_file}"
        elif self._told is None:
            self._trained_s = time.monotonic() - self._began_s
            told = self._told = dict(json.loads(self._result_file.read_bytes()))
            self._ended = bool(told["passed"])
            if not self._ended:
                kept = self._settings.trainer_folder() / "trainings" / told["version"] / "candidate"
                self._process = self._run("ab", "models", "promote", told["version"], "--store", str(kept))
        else:
            self._ended = True

    def outcome(self) -> str:
        """What became of the training, in a sentence or two."""
        if self._process is None:
            return "none was trained: the demo did not come to that"
        if self._failed:
            return self._failed
        told = self._told
        if told is None:
            return f"none was ready when the week ended, the training was at: {self._phase()}; its log is {self.log_file}"
        figures = told["figures"]
        ours, theirs = (of["ndcg@10"] for of in (figures["candidate"], figures.get("incumbent") or figures["popularity"]))
        where = f"swapped into all {self._n_workers} workers" if self._swapped_s else "announced, but not yet in all workers"
        text = (f"{told['version']} is {where}, trained beside them in {self._trained_s:.0f} s; on the newest purchases, which it had not seen, NDCG@10 "
                f"{ours:.3f} against {theirs:.3f} of {told['against']}")
        return text if told["passed"] else f"{text}: the trainer's gate kept it back, and the demo promoted it by hand, so that a swap is seen"

    def _model(self) -> str:
        """The board's word on what lists are made with."""
        if self._swapped_s:
            name = f"release {str(self._told['version'])[-6:]}" if self._told else "a new release"
            return f"{name} in all workers for {time.monotonic() - self._swapped_s:.0f} s, {self._board.n_with_release:,} lists made with it"
        if self._failed:
            return "learned online; the training left no release"
        if self._told:
            return "learned online; a release is announced"
        return f"learned online; a release is being trained: {self._phase()}, {time.monotonic() - self._began_s:.0f} s"

    def _phase(self) -> str:
        """What the training says that it is at."""
        told = [line.partition(TELLER)[2] for line in self.log_file.read_text(errors="replace").splitlines() if TELLER in line]
        return told[-1].partition(":")[0] if told else "starting"

    def __enter__(self) -> Renewal:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        stage.clear_undisturbed()
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _yielding() -> None:
    """Runs in the child before its command."""
    os.nice(NICENESS)
    die_with_parent()
