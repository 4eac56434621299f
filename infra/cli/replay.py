"""`streamrec replay`, `shadows`, `promote` and `rollback`: another generation of state, made, looked at, put into use, removed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.backtest import OptionError
from infra.cli.cancelling import run
from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.replay.places import Place
    from consumers.replay.running import Progress
    from consumers.replay.source import Chosen
    from streams.generations import Filed

#: Where there is no terminal, a line so often.
LINE_S = 10.0
#: Of ours and all workers of ours: live ones come first, and on a machine that is full we still get somewhere.
NICE = 10
KAFKA = "kafka"


def replay(args: argparse.Namespace, settings: Settings) -> int:
    """Make a shadow and read the log into it, or go on with one; exit code 0 once it is whole."""
    from consumers.redis import connected
    from consumers.replay import running, shadows
    from consumers.replay.places import parse_place
    from consumers.replay.source import chosen_by
    from infra.topics import ensure_topics
    from streams.generations import generation_of
    from streams.keys import Keys
    from streams.store import at_generation

    name = args.shadow
    settings.with_own(name, {})  # a name that is none is told before anything is done
    begin, end = parse_place("--from", args.begin or "earliest"), parse_place("--to", args.end or "latest")
    if args.time == "event" and args.source == KAFKA:
        raise OptionError("Kafka finds events by the time at which it took them; with --time event say where an event log lies: --source log (the trainer's) "
                          "or --source FOLDER")
    own = _own(args.settings)
    os.nice(NICE)  # and with it all of its workers: live ones come first
    began_s = time.monotonic()

    async def main() -> int:
        chosen: Chosen | None = None
        async with connected(settings) as client, shadows.leased(client, Keys(settings.prefix, name)):
            there = await shadows.found(client, settings.prefix, name)
            if there is None:
                start, until, filed, chosen = await _planned(settings, args.source, args.time == "event", begin, end)
                await shadows.make(client, settings, name, shadows.planned(settings, name, own, start, until, args.speed or 0.0, filed))
            elif args.begin or own or args.source != KAFKA or args.time != "append":
                raise shadows.ShadowError(f"there is a generation {name} already, which keeps what it was begun with; without --from, --source, --time and "
                                          f"--settings its replay goes on, `streamrec shadows drop {name}` removes it")
            else:
                await shadows.go_on(client, settings, name, end if args.end else None, args.speed)
            of_it = await at_generation(settings.with_own(name, {}))
            meta = await generation_of(client, settings.prefix, name)
            assert meta.until is not None
            await ensure_topics(of_it)
            if chosen is None and args.end is None:
                chosen = await chosen_by(settings, meta.filed, await shadows.checkpoints(client, settings, name, meta))
            with _bar(f"{name}: ") as tell:
                await running.run(client, of_it, meta, args.workers, tell, chosen)
            return sum(meta.until) - sum(meta.start) if chosen is None else sum(chosen.n)

    try:
        n_events = run(main())
    except asyncio.CancelledError:
        print(f"stopped; `streamrec replay --shadow {name}` goes on", file=sys.stderr)
        return 130
    seconds = time.monotonic() - began_s
    if args.json:
        print(json.dumps({"shadow": name, "events": n_events, "seconds": round(seconds, 1)}))
    else:
        print(f"{name} is whole: {n_events:,} events, this run {seconds:.0f} s; `streamrec diff live {name}` compares it, `streamrec promote {name}` "
              "puts it into use")
    return 0


async def _planned(settings: Settings, source: str, by_time: bool, begin: Place, end: Place) -> tuple[list[int], list[int], Filed | None, Chosen | None]:
    """Where a replay begins and ends, what of it it reads from files, and which events of these. Nothing is made before all of it is known."""
    from consumers.replay.places import stretch_of
    from consumers.replay.source import source_of, stretch_by_time, stretch_in_files

    if source == KAFKA:
        return *await stretch_of(settings, begin, end), None, None
    log = await source_of(settings, settings.trainer_folder() / "log" if source == "log" else source)
    chosen: Chosen | None
    filed: Filed | None
    if by_time:
        chosen, filed = await stretch_by_time(log, begin, end)
        start, until = chosen.firsts, log.ends
    else:
        chosen, (start, until) = None, await stretch_of(settings, begin, end, log)
        filed = stretch_in_files(log, start)
    for words in log.lacks(start, until):
        _say(words)
    return start, until, filed, chosen


def shadows(args: argparse.Namespace, settings: Settings) -> int:
    """List generations, or remove one."""
    from consumers.replay import shadows as rooms

    if args.action == "drop":
        if not args.name:
            raise OptionError("`streamrec shadows drop` needs a name; `streamrec shadows list` shows which there are")
        n = run(rooms.drop(settings, args.name))
        print(json.dumps({"dropped": args.name, "keys": n}) if args.json else f"{args.name} is removed: {n:,} keys, its topics and its group")
        return 0
    listed = run(rooms.known(settings))
    if args.json:
        print(json.dumps({"generations": [{"name": one.name, "state": one.state, "live": one.live, "position": one.position, "until": one.until,
                                           "own": one.meta.own, "before": one.meta.before, "created_ms": one.meta.created_ms} for one in listed]}))
        return 0
    from rich.table import Table

    from infra.cli.console import stdout_console

    console = stdout_console()
    if not listed:
        console.print("no generation under this prefix yet: the first worker makes one")
        return 0
    table = Table("generation", "state", "events", "of", "began", "settings of its own", box=None, padding=(0, 2, 0, 0))
    for one in listed:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.meta.created_ms / 1000)) if one.meta.created_ms else ""
        own = ", ".join(f"{name}={value}" for name, value in one.meta.own.items())
        table.add_row(one.name, one.state, f"{one.position:,}", "" if one.until is None else f"{one.until:,}", began, own)
    console.print(table)
    return 0


def promote(args: argparse.Namespace, settings: Settings) -> int:
    """Put a shadow into use."""
    from consumers.replay import promotion

    if args.dry_run:
        planned = run(promotion.plan(settings, args.name))
        if args.json:
            import msgspec

            print(json.dumps(msgspec.to_builtins(planned)))
        else:
            print(f"{planned.old} is live; {planned.new} has {planned.behind:,} events to read first, then {planned.rows:,} lists would be written, "
                  f"within {planned.seconds:g} s. Nothing was changed")
        return 0
    os.nice(NICE)
    with _bar(f"{args.name}: ") as tell:
        old = run(promotion.promote(settings, args.name, args.workers, tell, _say))
    print(json.dumps({"live": args.name, "before": old}) if args.json else f"{args.name} is live, {old} was; `streamrec rollback` goes back, until "
          f"`streamrec shadows drop {old}`")
    return 0


def rollback(args: argparse.Namespace, settings: Settings) -> int:
    """Put the generation into use that was live before."""
    from consumers.replay import promotion

    os.nice(NICE)
    with _bar("") as tell:
        old, new = run(promotion.rollback(settings, args.workers, tell, _say))
    print(json.dumps({"live": new, "before": old}) if args.json else f"{new} is live again, {old} was")
    return 0


def _own(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f'{path} is no TOML ({error}); expected lines such as weights = "purchase=10" or list_size = 50') from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar with what is left, or a line now and then where there is no terminal."""
    from infra.cli.console import progress_bar

    said_s = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(label, total=None)

        def tell(now: Progress) -> None:
            nonlocal said_s
            rate = f", {now.events_a_s:,.0f}/s" if now.events_a_s else ""
            said = f"{label}{now.position:,} of {now.until:,} {now.doing}{rate}"
            bar.update(task, description=said, completed=now.position, total=max(1, now.until))
            if bar.disable and time.monotonic() - said_s > LINE_S:
                said_s = time.monotonic()
                left = f", {now.eta_s:.0f} s left" if now.eta_s is not None else ""
                print(said + left, file=sys.stderr, flush=True)

        yield tell
