"""A worker whose host is a folder: checkpoints are files, and everything it is asked to do is a line of JSON on stdout.

Files with these names in the folder steer it: `away` (as if Redis were gone: assign waits), `fail` (absorb raises),
`reseek` ({"partition": offset}), `slow` (absorb takes 0.2 s). Checkpoints are written every 50 ms, so a killed worker
leaves some of what it absorbed for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from infra.settings import Settings
from streams.app import StreamApp, build_app, reseek, run_app
from streams.transport import Batch

TICK_S = 0.05


class FolderHost:
    """Implements PartitionHost over a folder."""

    app: StreamApp

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.absorbed: dict[int, int] = {}

    def say(self, **what: Any) -> None:
        print(json.dumps({**what, "at": time.time()}), flush=True)

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        self.say(do="assigning", partitions=sorted(partitions))
        while (self.folder / "away").exists():
            await asyncio.sleep(TICK_S)
        offsets = {p: int(path.read_text()) if (path := self.folder / f"checkpoint{p}").exists() else 0 for p in partitions}
        self.absorbed = dict(offsets)
        self.say(do="assign", offsets=offsets)
        return offsets

    async def revoke(self, partitions: set[int]) -> None:
        self.write(partitions)
        for partition in partitions:
            self.absorbed.pop(partition, None)
        self.say(do="revoke", partitions=sorted(partitions))

    async def absorb(self, batch: Batch) -> None:
        if (self.folder / "fail").exists():
            raise RuntimeError("absorb was told to fail")
        if (self.folder / "slow").exists():
            await asyncio.sleep(0.2)
            if batch.epoch != self.app.epoch(batch.partition):
                return  # a seek came while this one waited: a host must look again after each of its own awaits
        assert [record.offset for record in batch.records] == list(range(batch.start, batch.next))
        self.say(do="absorb", partition=batch.partition, start=batch.start, next=batch.next, epoch=batch.epoch,
                 values=[record.value.decode() for record in batch.records])
        self.absorbed[batch.partition] = batch.next

    def low_water(self, partition: int) -> int | None:
        return self.absorbed.get(partition)

    def write(self, partitions: set[int]) -> None:
        for partition in partitions & self.absorbed.keys():
            written = self.folder / f"checkpoint{partition}.{os.getpid()}"
            written.write_text(str(self.absorbed[partition]))
            written.replace(self.folder / f"checkpoint{partition}")

    async def run(self) -> None:
        """What a worker does beside absorbing."""
        while True:
            await asyncio.sleep(TICK_S)
            self.write(set(self.absorbed))
            wish = self.folder / "reseek"
            if wish.exists():
                offsets = {int(p): offset for p, offset in json.loads(wish.read_text()).items()}
                wish.unlink()
                before = {p: self.app.epoch(p) for p in offsets}
                seeking = asyncio.ensure_future(reseek(self.app, offsets))
                await asyncio.sleep(0)
                self.say(do="reseek", offsets=offsets, epochs={p: self.app.epoch(p) for p in offsets}, before=before)
                self.absorbed |= offsets
                await seeking


def main() -> int:
    """argv: folder, then settings as JSON."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s %(levelname)s %(message)s")
    host = FolderHost(Path(sys.argv[1]))
    host.say(do="imported")
    host.app = build_app(Settings.load(env={}, **json.loads(sys.argv[2])), host)
    return run_app(host.app, [host.run])


if __name__ == "__main__":
    sys.exit(main())
