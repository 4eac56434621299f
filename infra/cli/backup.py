"""`streamrec backup` and `streamrec restore`: a generation of state into a folder, and back."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.cancelling import run
from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.backup.taking import Progress

NICE = 10


def backup(args: argparse.Namespace, settings: Settings) -> int:
    """Take one."""
    from consumers.backup.taking import take

    os.nice(NICE)  # workers come first
    began_s, folder = time.monotonic(), Path(args.folder)
    try:
        with _bar() as tell:
            made = run(take(settings, folder, args.generation or settings.generation or None, tell, with_release=not args.no_release))
    except asyncio.CancelledError:
        print("stopped; nothing of the backup is left", file=sys.stderr)
        return 130
    n_bytes, seconds = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), time.monotonic() - began_s
    users, items = made.files["users"].records, made.files["items"].records
    if args.json:
        print(json.dumps({"folder": str(folder), "id": made.id, "generation": made.generation, "users": users, "items": items, "offsets": made.offsets,
                          "release": made.release, "bytes": n_bytes, "seconds": round(seconds, 1)}))
    else:
        print(f"{folder}: generation {made.generation}, {users:,} users and {items:,} items, {n_bytes / 1e6:,.1f} MB in {seconds:.1f} s; it goes on from events "
              f"{_places(made.offsets)}")
    return 0


def restore(args: argparse.Namespace, settings: Settings) -> int:
    """Put one back."""
    from consumers.backup.restoring import restore as put_back

    began_s = time.monotonic()
    try:
        with _bar() as tell:
            done = run(put_back(settings, Path(args.folder), tell, dry_run=args.dry_run))
    except asyncio.CancelledError:
        print("stopped; nothing was changed" if args.dry_run else f"stopped; if anything was written, workers wait until `streamrec restore {args.folder}` has been"
              " given again", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps({**dataclasses.asdict(done), "dry_run": args.dry_run, "seconds": round(time.monotonic() - began_s, 1)}))
        return 0
    for note in done.notes:
        print(note)
    what = f"generation {done.generation}, {done.users:,} users and {done.items:,} items"
    if args.dry_run:
        print(f"{args.folder} is whole and fits: {what}; workers would read {done.behind:,} events after it. Nothing was changed")
    else:
        erased = f"; {done.erased:,} users who were erased since were left out" if done.erased else ""
        print(f"{what} are back{erased}. Start the workers: they read {done.behind:,} events that have come since, and write all lists")
    return 0


def _places(offsets: list[int]) -> str:
    return ",".join(f"{p}:{offset}" for p, offset in enumerate(offsets))


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """A progress bar with what is left; nothing where there is no terminal."""
    from infra.cli.console import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("", total=None)

        def tell(now: Progress) -> None:
            bar.update(task, description=f"{now.done:,} of {now.total:,} {now.doing}", completed=now.done, total=max(1, now.total))

        yield tell
