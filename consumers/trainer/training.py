"""One training, from the event log to the announcement, as steps that leave files: killed anywhere, it goes on behind the last.

The folder of the training under way is `job`; a step is done when its file is there, whole:

    plan.json        which events, which configuration, which version it will be: all else follows from it
    window.npz       what is learned and what is judged on
    checkpoint.pt    how far learning has come
    weights.npz
    candidate/       the release, as it would be served
    verdict.json     whether it passed, with the figures
                     then, if it passed: released into the store, announced; both can be done twice

At the end the folder becomes `trainings/<version>`. So what did not pass is kept there, with the figures that say why; and when the
last training was, and on which events, is read from there too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from consumers.event_log import EventLog
from consumers.trainer import configs
from consumers.trainer.judging import Verdict, judge, told
from consumers.trainer.window import Choice, Window, make_window
from infra.settings import Settings, StreamrecError
from models.release import BadRelease, Manifest, Release, Shape, new_version, read, versions, write
from models.transformer.data import Sequences
from models.transformer.weights import Weights
from streams.announcements import announce, announced

log = logging.getLogger(__name__)

#: Of finished trainings so many are kept with weights and candidate, those that were released longer: warm starts need them.
KEPT = 5
#: What the extra `train` brings.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "pyarrow", "fsspec")
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class TrainerError(StreamrecError):
    """A training cannot be done; the message says what it needs."""


class Stopped(Exception):
    """The trainer was told to stop; the training goes on when it starts again."""


class Plan(msgspec.Struct):
    """What `plan.json` says."""

    version: str
    reason: str
    ends: dict[int, int]
    last_day: str
    window_days: int
    exemplars: float
    type_weights: dict[str, float]
    neutral: float | None
    parent: str | None
    started_ms: int

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        return int(self.version[-6:], 16)


@dataclass(frozen=True)
class Report:
    """Where a training stands: the step it is at, and while it learns how that goes."""

    phase: str
    step: int = 0
    n_steps: int = 0
    loss: float = 0.0
    tokens_per_s: float = 0.0
    eta_s: float = 0.0


class Training:
    """The training in `folder/job`; `run` blocks until it is finished, and may be called in a thread.

    report: hears where it stands; stop: whether to break off; turn: returns when no other trainer is at work.
    """

    def __init__(self, settings: Settings, *, report: Callable[[Report], None], stop: Callable[[], bool], turn: Callable[[], None]) -> None:
        self._settings, self._report, self._stop, self._turn = settings, report, stop, turn
        self.folder = settings.trainer_folder()
        self.job = self.folder / "job"

    @property
    def begun(self) -> bool:
        """Whether a training was begun and not finished."""
        return (self.job / "plan.json").exists()

    def begin(self, reason: str) -> None:
        """Plan a training on what the log holds now. Raises TooLittle, and then nothing is begun."""
        shutil.rmtree(self.job, ignore_errors=True)
        settings, parent = self._settings, asyncio.run(announced(self._settings))
        points = settings.rating_points()
        with EventLog(self.folder / "log").snapshot() as moment:
            days = moment.days()
            plan = Plan(new_version(), reason, moment.ends, days[-1] if days else "", settings.train_window_days, settings.train_exemplars,
                        settings.type_weights(), points[1] if points else None, parent.version if parent else None, time.time_ns() // 1_000_000)
            self._report(Report("reading the log"))
            window = make_window(moment, plan.ends, plan.last_day, _choice(plan))
        self.job.mkdir(parents=True)
        window.save(self.job / "window.npz")
        _write(self.job / "plan.json", msgspec.json.encode(plan))
        log.info("training %s begins (%s): %s events of %s users and %s items, judged on %s", plan.version, reason, *(
            f"{window.facts[name]:,}" for name in ("n_events", "n_users", "n_items", "n_tests")))

    def run(self) -> tuple[str, Verdict]:
        """Go on to the end; version and verdict. Raises Stopped, TrainerError, and what stores and servers raise: then call it again."""
        plan = msgspec.json.decode((self.job / "plan.json").read_bytes(), type=Plan)
        window = self._window(plan)
        candidate = self._candidate(plan, window)
        self._turn()  # learning takes hours, in which a lease can be lost; whom we are compared with is who is served now
        verdict = self._verdict(plan, window, candidate)
        if verdict.passed:
            self._check_stop()
            self._report(Report("releasing"))
            self._release(plan, dataclasses.replace(candidate.manifest, metrics=told(verdict)), candidate)
            current = asyncio.run(announced(self._settings))
            if current is None or current.version != plan.version:
                asyncio.run(announce(self._settings, self._settings.store(), plan.version))
            log.info("release %s is announced: %s", plan.version, verdict.why)
        else:
            log.warning("candidate %s is not released: %s; it is kept in %s", plan.version, verdict.why, self.folder / "trainings" / plan.version)
        self._finish(plan)
        return plan.version, verdict

    def _window(self, plan: Plan) -> Window:
        try:
            return Window.load(self.job / "window.npz")
        except DAMAGED as error:  # after a power cut
            log.warning("the window of training %s cannot be read (%r): made anew", plan.version, error)
        with EventLog(self.folder / "log").snapshot() as moment:
            window = make_window(moment, plan.ends, plan.last_day, _choice(plan))
        window.save(self.job / "window.npz")
        return window

    def _candidate(self, plan: Plan, window: Window) -> Release:
        store = str(self.job / "candidate")
        try:
            return read(store, plan.version)
        except BadRelease:
            shutil.rmtree(self.job / "candidate", ignore_errors=True)
        weights = self._weights(plan, window)
        self._check_stop()
        self._report(Report("exporting"))
        from models.transformer.export import item_vectors, to_onnx

        vectors, model = item_vectors(weights), weights.model
        facts = {**window.facts, "last_offsets": plan.ends, "reason": plan.reason}
        write(store, Release(
            Manifest(version=plan.version, parent=plan.parent, code_version=_code_version(), data=facts, seeds={"train": plan.seed},
                     config={"model": dataclasses.asdict(model), "train": dataclasses.asdict(weights.train)},
                     shape=Shape(len(vectors), model.d, model.max_len, model.n_types)),
            vectors, window.keys, to_onnx(weights)))
        return read(store, plan.version)

    def _weights(self, plan: Plan, window: Window) -> Weights:
        path = self.job / "weights.npz"
        try:
            return Weights.load(path)
        except DAMAGED:
            pass
        model, train = configs.configs(self._settings, seed=plan.seed)
        start, known = self._parent(plan, window, model)
        if start is not None:
            train = configs.warm(train)
        check_packages()
        from models.transformer.training import CheckpointError, fit

        sequences = Sequences(window.items, window.types, window.times_ms, window.ends)
        checkpoint = self.job / "checkpoint.pt"

        def progress(now: Any) -> None:
            self._check_stop()
            self._report(Report("learning", now.step, now.n_steps, now.loss, now.tokens_per_s, now.eta_s))

        def learn() -> Weights:
            found: Weights = fit(sequences, len(window.keys), model, train, start=start, known=known, checkpoint=checkpoint, progress=progress)
            return found

        self._report(Report("learning"))
        try:
            weights = learn()
        except (CheckpointError, RuntimeError, EOFError, zipfile.BadZipFile) as error:  # of other settings, or damaged by a power cut
            if not checkpoint.exists():
                raise
            log.warning("the checkpoint of training %s cannot be used (%s): it begins anew", plan.version, error)
            checkpoint.unlink()
            weights = learn()
        except FloatingPointError as error:
            shutil.rmtree(self.job)
            raise TrainerError(f"training {plan.version} failed and is given up: {error}, by the setting train_model") from error
        scratch = path.with_name(path.name + ".part")
        weights.save(scratch)
        np.save(self.job / "keys.npy", window.keys)
        scratch.replace(path)
        return weights

    def _parent(self, plan: Plan, window: Window, model: Any) -> tuple[Weights | None, np.ndarray | None]:
        """Weights of the release that is served, and where each item stands in them."""
        if plan.parent is None:
            return None, None
        folder = self.folder / "trainings" / plan.parent
        try:
            start, keys = Weights.load(folder / "weights.npz"), np.load(folder / "keys.npy", allow_pickle=False)
        except DAMAGED as error:
            log.warning("the weights of release %s are not here (%s): the training begins without them", plan.parent, error)
            return None, None
        if dataclasses.replace(start.model, dropout=model.dropout) != model:
            log.warning("release %s has another shape than train_model asks for: the training begins without its weights", plan.parent)
            return None, None
        order = np.argsort(keys)
        at = np.minimum(np.searchsorted(keys, window.keys, sorter=order), len(keys) - 1)
        return start, np.where(keys[order[at]] == window.keys, order[at], -1).astype(np.int32)

    def _verdict(self, plan: Plan, window: Window, candidate: Release) -> Verdict:
        path = self.job / "verdict.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Verdict)
        except (OSError, msgspec.DecodeError):
            pass
        self._check_stop()
        self._report(Report("judging"))
        incumbent, notes = None, []
        current = asyncio.run(announced(self._settings))
        if current is not None and current.version != plan.version:
            try:
                incumbent = read(current.store, current.version)
            except (BadRelease, OSError) as error:
                notes.append(f"release {current.version} is announced, but cannot be read ({error}): judged as a first release")
                log.warning(notes[-1])
        verdict = judge(window, candidate, incumbent, seed=plan.seed)
        verdict.notes.extend(notes)
        _write(path, json.dumps(dataclasses.asdict(verdict), indent=1).encode())
        return verdict

    def _release(self, plan: Plan, manifest: Manifest, candidate: Release) -> None:
        store = self._settings.store()
        if plan.version in versions(store):
            return
        release = candidate._replace(manifest=manifest)
        try:
            write(store, release)
        except FileExistsError:  # what a kill has left under its temporary name; it is gone now
            write(store, release)

    def _finish(self, plan: Plan) -> None:
        done = self.folder / "trainings"
        done.mkdir(exist_ok=True)
        for name in ("window.npz", "checkpoint.pt"):
            (self.job / name).unlink(missing_ok=True)
        os.rename(self.job, done / plan.version)
        finished = sorted((path for path in done.iterdir() if path.is_dir()), reverse=True)
        released = [path for path in finished if _passed(path)]
        for old in set(finished[KEPT:]) - set(released[:KEPT]):
            shutil.rmtree(old, ignore_errors=True)

    def last(self) -> Plan | None:
        """The newest training that was finished."""
        for path in sorted((self.folder / "trainings").glob("*/plan.json"), reverse=True):
            try:
                return msgspec.json.decode(path.read_bytes(), type=Plan)
            except (OSError, msgspec.DecodeError):
                continue
        return None

    def _check_stop(self) -> None:
        if self._stop():
            raise Stopped


def _passed(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "verdict.json").read_bytes())["passed"])
    except DAMAGED:
        return False


def _choice(plan: Plan) -> Choice:
    return Choice(window_days=plan.window_days, exemplars=plan.exemplars, type_weights=plan.type_weights, neutral=plan.neutral, seed=plan.seed)


def check_packages() -> None:
    """Raises TrainerError where a package is missing: the end of a training would be too late for that."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainerError(f'training needs {", ".join(missing)}, which {"is" if len(missing) == 1 else "are"} not installed: pip install '
                           '"streamrec[train]"; workers do not need that')


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".part")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _code_version() -> str:
    try:
        return importlib.metadata.version("streamrec")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
