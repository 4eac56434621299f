"""One process at a time, by a lock on a file: it goes with its holder, however that one ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infra.settings import StreamrecError


@contextmanager
def only_one(path: Path, busy: Callable[[str], StreamrecError]) -> Iterator[None]:
    """Hold the lock, or raise what `busy` makes of who holds it. The file stays: whoever waits for it must not lock another of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise busy(lock.read().strip() or "another process") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        lock.flush()
        yield
