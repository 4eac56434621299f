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

import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from consumers.trainer.candidate import make_release, rounded
from consumers.trainer.configs import configs
from consumers.trainer.judging import Verdict, figures_of, judge, ranks_of, told
from consumers.trainer.learning import DAMAGED, Report, Stopped, TrainerError, learn
from consumers.trainer.surroundings import Surroundings
from consumers.trainer.texts import make_texts
from consumers.trainer.window import Choice, Window, make_window
from infra.settings import Settings
from models.durable import put_bytes
from models.release import BadRelease, Manifest, Release, new_version, read, versions, write
from models.transformer.weights import Weights

log = logging.getLogger(__name__)

#: Of finished trainings so many are kept with weights and candidate, those that were released longer: warm starts need them.
KEPT = 5


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
    mark: str = ""
    text: str = ""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        return int(self.version[-6:], 16)


class Training:
    """The training in `folder/job`; `run` blocks until it is finished, and may be called in a thread.

    around: where events come from, and who is served; report: hears where it stands; stop: whether to break off; turn: returns when
    no other trainer is at work.
    """

    def __init__(self, settings: Settings, around: Surroundings, *, report: Callable[[Report], None], stop: Callable[[], bool] = lambda: False,
                 turn: Callable[[], None] = lambda: None) -> None:
        self._settings, self._around, self._report, self._stop, self._turn = settings, around, report, stop, turn
        self.folder = settings.trainer_folder()
        self.job = self.folder / "job"

    @property
    def begun(self) -> bool:
        """Whether a training on these events was begun and not finished."""
        return (self.job / "plan.json").exists() and self._plan().mark == self._around.mark

    def _plan(self) -> Plan:
        return msgspec.json.decode((self.job / "plan.json").read_bytes(), type=Plan)

    def begin(self, reason: str) -> None:
        """Plan a training on what the log holds now. Raises TooLittle, and then nothing is begun."""
        shutil.rmtree(self.job, ignore_errors=True)
        settings, around, parent = self._settings, self._around, self._around.served()
        points = settings.rating_points()
        with around.moment() as moment:
            days = moment.days()
            plan = Plan(new_version(), reason, moment.ends, days[-1] if days else "", settings.train_window_days, settings.train_exemplars,
                        settings.type_weights(), points[1] if points else None, parent.version if parent else None, time.time_ns() // 1_000_000,
                        around.mark, settings.train_text)
            self._report(Report("reading the log"))
            window = self._with_texts(plan, make_window(moment, plan.ends, plan.last_day, _choice(plan)))
        self.job.mkdir(parents=True)
        window.save(self.job / "window.npz")
        put_bytes(self.job / "plan.json", msgspec.json.encode(plan))
        log.info("training %s begins (%s): %s events of %s users and %s items, judged on %s", plan.version, reason, *(
            f"{window.facts[name]:,}" for name in ("n_events", "n_users", "n_items", "n_tests")))

    def run(self) -> tuple[str, Verdict]:
        """Go on to the end; version and verdict. Raises Stopped, TrainerError, and what stores and servers raise: then call it again."""
        plan = self._plan()
        window = self._window(plan)
        candidate = self._candidate(plan, window)
        self._turn()  # learning takes hours, in which a lease can be lost; whom we are compared with is who is served now
        verdict = self._verdict(plan, window, candidate)
        if verdict.passed:
            self._check_stop()
            self._report(Report("releasing"))
            self._release(plan, dataclasses.replace(candidate.manifest, metrics=told(verdict)), candidate)
            current = self._around.served()
            if current is None or current.version != plan.version:
                self._around.serve(plan.version)
            log.info("release %s is %s: %s", plan.version, self._around.where, verdict.why)
        else:
            log.warning("candidate %s is not released: %s; it is kept in %s", plan.version, verdict.why, self.folder / "trainings" / plan.version)
        self._finish(plan)
        return plan.version, verdict

    def _window(self, plan: Plan) -> Window:
        try:
            return Window.load(self.job / "window.npz")
        except DAMAGED as error:  # after a power cut
            log.warning("the window of training %s cannot be read (%r): made anew", plan.version, error)
        with self._around.moment() as moment:
            window = self._with_texts(plan, make_window(moment, plan.ends, plan.last_day, _choice(plan)))
        window.save(self.job / "window.npz")
        return window

    def _with_texts(self, plan: Plan, window: Window) -> Window:
        if not plan.text:
            return window
        self._report(Report("reading the items"))
        return make_texts(self._around.items(), plan.text).joined(window)

    def _candidate(self, plan: Plan, window: Window) -> Release:
        store = str(self.job / "candidate")
        try:
            return read(store, plan.version)
        except BadRelease:
            shutil.rmtree(self.job / "candidate", ignore_errors=True)
        weights = self._weights(plan, window)
        self._check_stop()
        self._report(Report("exporting"))
        facts = {"last_offsets": plan.ends, "reason": plan.reason}
        exact = make_release(window, weights, version=plan.version, parent=plan.parent, seed=plan.seed, facts=facts)
        release = rounded(exact, self._settings.train_rounding)
        if release is not exact:  # what rounding costs is told beside the verdict
            self._report(Report("judging what is not rounded"))
            put_bytes(self.job / "exact.json", json.dumps(figures_of(ranks_of(window, exact))).encode())
        write(store, release)
        return read(store, plan.version)

    def _weights(self, plan: Plan, window: Window) -> Weights:
        parent = self.folder / "trainings" / plan.parent if plan.parent else None
        try:
            return learn(self.job, window, parent, *configs(self._settings, seed=plan.seed), report=self._report, check_stop=self._check_stop)
        except FloatingPointError as error:
            shutil.rmtree(self.job)
            raise TrainerError(f"training {plan.version} failed and is given up: {error}, by the setting train_model") from error

    def _verdict(self, plan: Plan, window: Window, candidate: Release) -> Verdict:
        path = self.job / "verdict.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Verdict)
        except (OSError, msgspec.DecodeError):
            pass
        self._check_stop()
        self._report(Report("judging"))
        incumbent, notes = None, []
        current = self._around.served()
        if current is not None and current.version != plan.version:
            try:
                incumbent = read(current.store, current.version)
            except (BadRelease, OSError) as error:
                notes.append(f"release {current.version} is announced, but cannot be read ({error}): judged as a first release")
                log.warning(notes[-1])
        verdict = judge(window, candidate, incumbent, seed=plan.seed)
        if (self.job / "exact.json").exists():
            verdict.figures["not rounded"] = json.loads((self.job / "exact.json").read_bytes())
        verdict.notes.extend(notes)
        put_bytes(path, json.dumps(dataclasses.asdict(verdict), indent=1).encode())
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
