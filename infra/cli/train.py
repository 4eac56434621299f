"""`streamrec train`: the trainer as a service, or one training by hand, of what Kafka holds or of a file; with a progress bar on a terminal."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.backtest import OptionError, load, span_ms
from infra.logs import start_logs
from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.trainer import Report, Verdict

    Done = tuple[str, Verdict]

#: Where there is no terminal, a line so often.
LINE_S = 30.0


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0: released, kept with its figures, or told to stop."""
    if args.every:
        settings = dataclasses.replace(settings, train_every_s=span_ms("every", args.every) // 1000)
    if args.events:
        settings = dataclasses.replace(settings, train_events=args.events)
    if args.store:
        settings = dataclasses.replace(settings, models_store=args.store)
    _check(args)
    start_logs(settings)
    for noisy in ("aiokafka", "kafka"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    done = _on_file(args, settings) if args.source else _on_kafka(args, settings)
    if done is not None:
        _tell(done, args, settings)
    return 0


def _check(args: argparse.Namespace) -> None:
    service = {"--once": args.once, "--every": args.every, "--events": args.events}
    file = {f"--{name}": getattr(args, name) for name in ("announce", "items", "data", "format", "limit")}
    file |= {f"--{name.removeprefix('column_')}": value for name, value in vars(args).items() if name.startswith("column_")}
    if wrong := [name for name, value in (service if args.source else file).items() if value]:
        raise OptionError(f"{', '.join(wrong)} is for a training on {'what Kafka holds: streamrec train' if args.source else 'a file: streamrec train FILE'}")
    if args.json and not (args.once or args.source):
        raise OptionError("--json is for --once, or for a file")


def _on_kafka(args: argparse.Namespace, settings: Settings) -> Done | None:
    from consumers.trainer import Trainer
    from infra.topics import ensure_topics_patiently

    async def main() -> Done | None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await ensure_topics_patiently(settings)
            with _Show() as show:
                trainer = Trainer(settings, show.tell)
                if args.once:
                    return await trainer.train_once()
                await trainer.serve()
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("told to stop; what is under way goes on at the next start")
        return None

    return asyncio.run(main())


def _on_file(args: argparse.Namespace, settings: Settings) -> Done:
    from consumers.trainer import Report
    from consumers.trainer.recorded import train_recorded
    from infra.topics import ensure_topics_patiently

    if args.announce:
        asyncio.run(ensure_topics_patiently(settings))
    with _Show() as show:
        show.tell(Report(f"reading {args.source}"))
        data = load(args, settings)
        for note in data.notes:
            logging.getLogger(__name__).info("%s", note)
        return train_recorded(settings, data.log, items=Path(args.items) if args.items else None, announce=args.announce, tell=show.tell)


def _tell(done: Done, args: argparse.Namespace, settings: Settings) -> None:
    version, verdict = done
    if args.json:
        print(json.dumps({"version": version, **dataclasses.asdict(verdict)}))
        return
    if not verdict.passed:
        from consumers.trainer.recorded import FOLDER

        folder = settings.trainer_folder() / (FOLDER if args.source else "") / "trainings"
        print(f"candidate {version} is kept in {folder / version}, and not released")
    elif args.announce or not args.source:
        print(f"release {version} is announced")
    else:
        print(f"release {version} lies in {settings.store()}; `streamrec models promote {version[-6:]}` has it served")
    print(verdict.why)


class _Show:
    """A bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        from infra.cli.console import progress_bar

        self._bar = progress_bar()
        self._task: object = None
        self._said_s, self._phase = 0.0, ""

    def __enter__(self) -> _Show:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, report: Report) -> None:
        """Called in the thread of the training."""
        figures = f"loss {report.loss:.3f}, {report.tokens_per_s:,.0f} events/s" if report.step else ""
        if self._bar.disable:
            if report.phase != self._phase or 0 < report.step == report.n_steps or time.monotonic() - self._said_s > LINE_S:
                self._said_s = time.monotonic()
                logging.getLogger(__name__).info("%s%s", report.phase, f": step {report.step:,} of {report.n_steps:,}, {figures}, "
                                                 f"{report.eta_s:,.0f} s left" if report.step else "")
        else:
            if self._task is None:
                self._task = self._bar.add_task("")
            self._bar.update(self._task, total=report.n_steps or None, completed=report.step,  # type: ignore[arg-type]
                             description=", ".join(filter(None, [report.phase, figures])))
        self._phase = report.phase
