"""What every other test here rests on: a worker at rest holds what the engine holds, and the comparison can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from infra.settings import Settings
from infra.stack import WorkerProcess
from models.item_rows import N_SUCCESSOR_BUCKETS, N_SUCCESSORS, is_touch
from tests.live.equality import AsOfWatcher, Redis, check_equal, compare, item_rows, lockstep, read_log
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


def test_full_rows_differ_only_in_weak_successors(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess]) -> None:
    """With more followers than a row holds, interleaving matters: here is how much, and what holds even so.

    Nothing is ever counted twice: no successor has more than the log says. What both rows hold without ever having
    dropped it is exact, and what is lost is weak: of the strongest hardly anything is.
    """
    settings = namespace()
    events = Events(settings, seed=12, users=400, items=200, popular=2.0)
    send(settings, events, 12_000)
    start_worker(settings)
    engine = check_equal(settings, exact=False)  # user rows, counts and lists are exact all the same
    said = successors_said(settings)
    table = engine.state.items
    live = item_rows(np.concatenate([Redis(settings).item_rows(p) for p in range(settings.partitions)]))
    lockstep = item_rows(table.rows[: table.n_items])
    full = [h for h, (_, successors) in lockstep.items() if len(successors) == N_SUCCESSORS]
    assert len(full) > 20, "many rows are full"
    differing = total = strong_lost = strong_said = 0
    for h in full:
        one, other, truth = live[h][1], lockstep[h][1], said[h]
        for row in (one, other):
            assert all((np.array(counts) <= truth[successor]).all() for successor, counts in row.items()), "counted twice"
        sizes = {successor: (sum(one.get(successor, [0])), sum(other.get(successor, [0]))) for successor in one.keys() | other.keys()}
        differing += sum(abs(a - b) for a, b in sizes.values())
        total += sum(a + b for a, b in sizes.values()) / 2
        strongest = sorted(truth, key=lambda successor: -int(truth[successor].sum()))[:5]
        strong_said += sum(int(truth[successor].sum()) for successor in strongest)
        strong_lost += sum(int(truth[successor].sum()) - sum(one.get(successor, [0])) for successor in strongest)
    print(f"{len(full)} full rows: live and lockstep differ by {differing / total:.1%}; of the five strongest {strong_lost / strong_said:.2%} is lost")
    assert differing / total < 0.2
    assert strong_lost / strong_said < 0.1


def successors_said(settings: Settings) -> dict[int, dict[int, np.ndarray]]:
    """What the log of events says of successions, without any row's limits: counts by item, successor and bucket."""
    engine = lockstep(settings, {})
    rules, users = engine.state.items.rules, engine.state.users
    found: dict[int, dict[int, np.ndarray]] = {}
    for p, records in read_log(settings).items():
        for start in range(0, len(records), 1_000):
            part = records[start : start + 1_000]
            decoded = users.decode(p, part)
            users.admit(p, decoded, [None] * len(decoded.missing))
            users.absorb(p, decoded, part[-1].offset + 1)
        for record in users.take_records(p).records:
            if not is_touch(record["other"]):
                cells = found.setdefault(int(record["item"]), {}).setdefault(int(record["other"]), np.zeros(N_SUCCESSOR_BUCKETS, np.int64))
                cells[int(record["time_ms"]) // rules.followed_ms % N_SUCCESSOR_BUCKETS] += int(record["weight"])
    return found
