"""Loaded by a worker's interpreter before anything else, where this folder leads its path: kills it with -9 while it erases somebody.

TEST_DIES names the step: `met` (his row is blank in memory, nothing is said), `told` (the topic knows, nothing is removed), `row` (his row is
removed, his list is not), `list` (his list is removed, nothing else), `done` (both are, the checkpoint stands before).
"""

from __future__ import annotations

import os
import signal
from typing import Any

from streams.commit import Committer
from streams.publisher import Publisher
from streams.store import Store
from streams.users import UserSide

step = os.environ.get("TEST_DIES", "")
seen: set[str] = set()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


erase, write, publish, unpublish = UserSide.erase, Committer._write, Publisher.publish, Store.unpublish_user


def dying_erase(self: UserSide, partition: int, erased: Any) -> None:
    erase(self, partition, erased)
    if erased:
        seen.add("met")
        if step == "met":
            die()


async def dying_write(self: Committer, cuts: Any) -> None:
    if "met" in seen and step == "told":
        die()
    if "met" in seen and step == "list" and "unpublished" not in seen:
        for cut in cuts:  # as if it had not come to its turn
            cut.tenure.broken = True
        return
    await write(self, cuts)
    if "met" in seen and (step == "row" or step == "done" and "unpublished" in seen):
        die()


async def dying_publish(self: Publisher, chunk: Any) -> None:
    if "met" in seen and step in ("row", "told"):
        return
    await publish(self, chunk)
    if "unpublished" in seen and step == "list":
        die()


def dying_unpublish(self: Store, user: str) -> bytes:
    seen.add("unpublished")
    return unpublish(self, user)


if step:
    UserSide.erase = dying_erase  # type: ignore[method-assign]
    Committer._write = dying_write  # type: ignore[method-assign]
    Publisher.publish = dying_publish  # type: ignore[method-assign]
    Store.unpublish_user = dying_unpublish  # type: ignore[method-assign]
