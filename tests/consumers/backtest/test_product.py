"""The product under judgement is the product: its lists are those the engine publishes, and a channel alone is alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from consumers.backtest.ader import ader
from consumers.backtest.audit import audit
from consumers.backtest.log import Log
from consumers.backtest.plan import Rules
from consumers.backtest.product import CHANNELS, Product
from consumers.backtest.protocol import judge
from streams.engine import Engine, LogRecord
from streams.events import TYPE_CODES
from tests.consumers.backtest.worlds import random_world, world


def learned(log: Log, product: Product, end: int, step: int = 64) -> Product:
    product.start(log.until(0))
    for first in range(0, end, step):
        last = min(first + step, end)
        product.learn(log.until(last), first, last)
    return product


def names(log: Log, row: np.ndarray) -> list[str]:
    return [log.item_ids[i] for i in row.tolist() if i >= 0]


def test_its_lists_are_those_that_are_published() -> None:
    log = random_world(1)
    product = learned(log, Product({"list_size": 200}), 300, step=1)
    found = product.rank(np.arange(log.n_users, dtype=np.int32), int(log.times_ms[299]), 200)
    engine = Engine(product.settings, clock_ms=lambda: int(log.times_ms[299]))
    for k in range(300):
        user = log.user_ids[log.users[k]]
        event = {"event_id": str(k), "user_id": user, "item_id": log.item_ids[log.items[k]], "event_type": "view",
                 "timestamp": int(log.times_ms[k])}
        engine.absorb(engine.partition_of(user), [LogRecord(k, event["timestamp"], json.dumps(event).encode())])  # type: ignore[arg-type]
    published = {user: json.loads(body) for user, body in engine.lists(log.user_ids).items()}
    assert len(published) == log.n_users
    for u, user in enumerate(log.user_ids):
        assert names(log, found.items[u]) == published[user]["items"]
        shares = np.sqrt(found.scores[u, : len(published[user]["items"])] / found.scores[u, 0])
        assert np.abs(shares - published[user]["scores"]).max() < 0.0051


def test_it_absorbs_the_values_of_ratings() -> None:
    log = random_world(2, n=120, n_users=5, n_items=8)
    values = np.random.default_rng(3).choice([1, 2, 4, 5, np.nan], 120)
    log = dataclasses.replace(log, types=np.full(120, TYPE_CODES["rating"], np.uint8), values=values)
    product = learned(log, Product(), 120)
    found = product.rank(np.arange(log.n_users, dtype=np.int32), int(log.times_ms[-1]), 8)
    for u in range(log.n_users):
        last = {int(i): v for i, v, who in zip(log.items, values, log.users, strict=True) if who == u}
        low = {item for item, value in last.items() if value <= 2}
        assert set(found.items[u][found.items[u] >= 0].tolist()) == set(range(log.n_items)) - low


def test_who_is_not_known_gets_what_is_popular() -> None:
    log = world([("a", "i", 0), ("a", "i", 1), ("b", "j", 2), ("c", "k", 3)])
    product = learned(log, Product(), 3)
    found = product.rank(np.array([2, 0], np.int32), int(log.times_ms[3]), 200)
    assert names(log, found.items[0]) == ["i", "j"]
    assert set(names(log, found.items[1])) == {"i", "j"}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_alone_is_the_same_whoever_shares_its_system(channel: str) -> None:
    log = random_world(2)
    product = Product()
    shared, own = Product(channel=channel, system=product.system), Product(channel=channel, name="own")
    result = judge(log, [product, shared, own], Rules(chunk=8))
    assert [one.name for one in result.judged] == ["product", channel, "own"]
    assert result.judged[1].ranks.tolist() == result.judged[2].ranks.tolist()
    assert result.judged[1].about["blend"] == f"{channel}=1"


def test_a_channel_alone_scores_nothing_but_its_own_candidates() -> None:
    log = random_world(2)
    alone = learned(log, Product(channel="repeat"), 300)
    found = alone.rank(np.arange(log.n_users, dtype=np.int32), int(log.times_ms[299]), 200)
    for u in range(log.n_users):
        had = set(log.items[:300][log.users[:300] == u].tolist())
        assert set(found.items[u][found.scores[u] > 0].tolist()) == had


def test_it_learns_once_however_many_share_it() -> None:
    log = random_world(3)
    shared = Product()
    both = judge(log, [shared, Product(channel="repeat", system=shared.system)], Rules())
    single = Product()
    alone = judge(log, [single], Rules())
    assert both.judged[0].ranks.tolist() == alone.judged[0].ranks.tolist()
    counts = [int(p.system.engine.state.users.table.rows["counts"].sum()) for p in (shared, single)]
    assert counts[0] == counts[1] > 100


def test_the_audit_finds_nothing() -> None:
    log = random_world(4)
    assert audit(log, [Product()], Rules()) > 50


def test_observing_teaches_nothing_of_items() -> None:
    log = random_world(5, n_users=6)
    log = ader(world([(log.user_ids[u], log.item_ids[i], k / 10) for k, (u, i) in enumerate(zip(log.users, log.items, strict=True))],
                     periods=[k // 100 for k in range(len(log))]))
    product, before = Product(), None
    product.start(log.until(0))
    probes = log.probes
    assert probes is not None
    for k in range(len(log)):
        if not probes[k]:
            product.learn(log.until(k + 1), k, k + 1)
            continue
        items = product.system.engine.state.items
        before = items.rows[: items.n_items].tobytes()
        product.observe(log.until(k + 1), k, k + 1)
        assert items.rows[: items.n_items].tobytes() == before
        table = product.system.engine.state.users.table
        slot = int(product.system.slots_of(log.users[k : k + 1])[0])
        assert table.rows[slot]["counts"].sum() == (log.users[: k + 1] == log.users[k]).sum()
    assert before is not None


def test_who_was_silent_for_too_long_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.backtest.system.FORGET_EVERY", 5)
    log = world([(f"u{k}", f"i{k % 3}", float(k)) for k in range(40)])
    product = learned(log, Product({"retention_s": 3 * 86_400}), 40, step=1)
    table = product.system.engine.state.users.table
    assert 4 <= len(table) <= 10
    assert product.system.slots_of(np.array([0, 39], np.int32)).tolist()[0] == -1
