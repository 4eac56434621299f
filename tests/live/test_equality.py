"""What every other test here rests on: a worker at rest holds what the engine holds, and the comparison can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.settings import Settings
from infra.stack import WorkerProcess
from tests.live.equality import AsOfWatcher, Redis, check_equal, compare
from tests.live.load import Events, Load, send


def test_a_log_and_a_live_stream_end_as_in_the_engine(
        namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess], wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    events = Events(settings, seed=1, users=100, misplaced=0.1)
    send(settings, events, 3_000)
    worker = start_worker(settings)
    with AsOfWatcher(settings, events.users) as watcher, Load(settings, events, rate=500) as load:
        wait_until(lambda: load.sent > 1_000 and watcher.n_read > 1_000, 60.0, "a live stream, read all the time")
        load.stop()
        engine = check_equal(settings)
    assert worker.alive
    table = engine.state.users.table
    assert sum(len(users) for users in table.slots) == 100, "every user of the log has a row"

    # the comparison can fail: a changed byte, a row that is gone, a list that is older
    worker.kill()
    state = Redis(settings)
    p, rows = next((p, rows) for p in range(settings.partitions) if (rows := state.user_rows(p)))
    user, row = next(iter(rows.items()))
    (item, item_row), *_ = state.client.hgetall(state.keys.items(0)).items()  # type: ignore[union-attr]
    body = state.client.get(state.keys.list_of(user))
    name = state.keys.user(p, user)
    for spoil, mend, said in (
        (lambda: state.client.set(name, row[:-1] + bytes([row[-1] ^ 1])), lambda: state.client.set(name, row), f"row of {user}"),
        (lambda: state.client.delete(name), lambda: state.client.set(name, row), f"no row of {user}"),
        (lambda: state.client.delete(state.keys.list_of(user)), lambda: state.client.set(state.keys.list_of(user), body),
         f"no list of {user}"),
        (lambda: state.client.hset(state.keys.items(0), item, item_row[:64] + b"\x07" + item_row[65:]),
         lambda: state.client.hset(state.keys.items(0), item, item_row), "item "),
    ):
        spoil()
        with pytest.raises(AssertionError, match=said):
            compare(settings, engine)
        mend()
    compare(settings, engine)
