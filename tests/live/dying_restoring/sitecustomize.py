"""Loaded by an interpreter before anything else, where this folder leads its path: kills `streamrec restore` with -9.

TEST_DIES names the step: `marked` (the mark is put, nothing else), `rows` (some rows are there), `whole` (all are, the marks of progress are not).
"""

from __future__ import annotations

import os
import signal
from typing import Any

from consumers.backup import restoring

step = os.environ.get("TEST_DIES", "")
write, finish, kafka = restoring._Writing._write, restoring._finish, restoring._kafka


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def dying_kafka(*args: Any) -> Any:
    if step == "marked":
        die()
    return await kafka(*args)


async def dying_write(self: restoring._Writing, records: Any) -> None:
    if step == "rows":
        await write(self, records[: len(records) // 2])
        die()
    await write(self, records)


async def dying_finish(*args: Any) -> None:
    if step == "whole":
        die()
    await finish(*args)


restoring._Writing._write = dying_write  # type: ignore[method-assign]
restoring._finish, restoring._kafka = dying_finish, dying_kafka  # type: ignore[assignment]
