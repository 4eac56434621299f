"""`streamrec export`: the topic of events as Parquet files, the event log that the trainer keeps too (docs/event_log.md).

Given again it adds what has come since; one that was killed goes on. It may be read while it is written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read what lies in the topic now, and write it."""
    from consumers.event_log import EventLog, Follower, LogWriter

    began_s = time.monotonic()

    async def main() -> tuple[int, int]:
        with LogWriter(args.folder, topic=settings.topic("events"), partitions=settings.partitions) as writer:
            async with Follower(settings, writer) as follower:
                await follower.catch_up()
            return follower.n_read, writer.n_added

    n_read, n_added = asyncio.run(main())
    with EventLog(args.folder).snapshot() as log:
        n_rows, ends = log.n_rows(), {str(p): end for p, end in sorted(log.ends.items())}
    seconds = time.monotonic() - began_s
    if args.json:
        print(json.dumps({"folder": args.folder, "read": n_read, "added": n_added, "rows": n_rows, "ends": ends, "seconds": round(seconds, 1)}))
    else:
        print(f"{args.folder}: {n_added:,} events added in {seconds:.1f} s, {n_rows:,} are there; {n_read - n_added:,} records read are no events")
    return 0
