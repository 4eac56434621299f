"""Two versions of the worker in one group, the newer with other rows: it takes over, and the older stops without having changed anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infra.settings import Settings
from infra.stack import WorkerProcess
from models import item_rows, user_row
from models.item_rows import ITEM_ROW
from models.row_formats import version_of
from models.user_row import USER_ROW
from tests.live.equality import Redis, check_equal, compare, lockstep, read_log, wait_drained
from tests.live.load import Events, Load, send
from tests.live.reading import read_all

FAST = {"commit_interval_ms": 50, "items_interval_ms": 500, "session_timeout_ms": 3_000}
NEXT = Path(__file__).parent / "next_version"
STEP_S = 60.0
SAID = "workers of a newer version have written generation 1"
Start = Callable[..., WorkerProcess]


def all_rows(settings: Settings) -> dict[str, bytes]:
    state = Redis(settings)
    return {user: row for p in range(settings.partitions) for user, row in state.user_rows(p).items()}


def of_ours(settings: Settings) -> None:
    """Write all rows as a worker of this version would have written them."""
    state = Redis(settings)
    for p in range(settings.partitions):
        for user, data in state.user_rows(p).items():
            row = np.frombuffer(data, USER_ROW).copy()
            row["version"], row["reserved"] = user_row.FORMAT.version, 0
            state.client.set(state.keys.user(p, user), row.tobytes())
        for key, data in state.client.hgetall(state.keys.items(p)).items():  # type: ignore[union-attr]
            item = np.frombuffer(data, ITEM_ROW).copy()
            item["version"] = item_rows.FORMAT.version
            state.client.hset(state.keys.items(p), key, item.tobytes())


def test_the_newer_takes_over_and_the_older_stops(namespace: Callable[..., Settings], start_worker: Start, wait_until: Callable[..., Any]) -> None:
    settings = namespace(**FAST)
    state, ours = Redis(settings), user_row.FORMAT.version
    newer = {"PYTHONPATH": f"{NEXT}{os.pathsep}{NEXT.parent.parent.parent}"}
    send(settings, Events(settings, seed=70, users=60), 600)
    old = start_worker(settings)
    check_equal(settings)
    before = all_rows(settings)
    assert {version_of(row) for row in before.values()} == {ours}

    events = Events(settings, seed=71, users=60)
    events.users = [f"u{n}" for n in range(30, 90)]  # of these half are known, half are new, and half of the known stay silent
    with Load(settings, events, 400) as load:
        until = load.sent + 400
        wait_until(lambda: load.sent > until, STEP_S, "traffic")
        new = [start_worker(settings, env=newer)]
        new[0].wait_ready(STEP_S)
        new.append(start_worker(settings, env=newer))  # whatever the older one was given beside the first, it must give away now
        wait_until(lambda: not old.alive, STEP_S, "the older one stops")
        assert old.exit_code == 1 and SAID in old.log, old.log
        until = load.sent + 400
        wait_until(lambda: load.sent > until, STEP_S, "traffic")
        load.stop()
    wait_drained(settings)
    rows = all_rows(settings)
    found = {user: (version_of(row), int(np.frombuffer(row, USER_ROW)[0]["reserved"][0])) for user, row in rows.items()}
    assert {found[f"u{n}"] for n in range(30)} == {(ours, 0)} and all(rows[f"u{n}"] == before[f"u{n}"] for n in range(30)), "nobody has touched them"
    assert (ours + 1, 2) in found.values() and {found[user] for user in rows.keys() - before.keys()} <= {(ours, 0), (ours + 1, 1), (ours + 1, 2)}
    assert not [worker for worker in new if not worker.alive]

    # the older one again, as whoever runs it would start it: it refuses before it touches anything
    send(settings, events, 100)
    wait_drained(settings)
    stands = all_rows(settings), state.owners(), state.checkpoints()
    again = start_worker(settings)
    wait_until(lambda: not again.alive, STEP_S, "it refuses")
    assert again.exit_code == 1 and SAID in again.log and "Upgrade it" in again.log and "Traceback" not in again.log, again.log
    assert (all_rows(settings), state.owners(), state.checkpoints()) == stands
    assert not asyncio.run(read_all(settings, "events.dlq")), "nothing was given up"

    for worker in new:
        assert worker.stop() == 0
    of_ours(settings)
    compare(settings, lockstep(settings, read_log(settings)))
