"""Loaded by a worker's interpreter before anything else, where this folder leads its path: kills it with -9 between two steps.

TEST_DIES names the step: `piece:N` (of what was learned, all before the N-th lie in Redis), `checkpoint` (all pieces, and
nothing names them), `rows:N` (the N-th cycle with rows has sent what it says, and writes nothing). Snapshots are cut small.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from streams import learning
from streams.commit import Committer
from streams.store import Store

learning.PIECE_BYTES = 1_000
step, _, number = os.environ.get("TEST_DIES", "").partition(":")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


save_learned, save_learned_checkpoint, write = Store.save_learned, Store.save_learned_checkpoint, Committer._write
cycles = 0


def dying_piece(self: Store, name: str, piece: int, data: bytes) -> bytes:
    if step == "piece" and piece == int(number):
        die()
    return save_learned(self, name, piece, data)


def dying_checkpoint(self: Store, checkpoint: Any) -> bytes:
    if step == "checkpoint":
        die()
    return save_learned_checkpoint(self, checkpoint)


async def dying_write(self: Committer, cuts: list[Any]) -> None:
    global cycles
    cycles += any(cut.users for cut in cuts)
    if step == "rows" and cycles >= int(number):
        die()
    await write(self, cuts)


Store.save_learned, Store.save_learned_checkpoint, Committer._write = dying_piece, dying_checkpoint, dying_write  # type: ignore[method-assign]
