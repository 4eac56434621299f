"""Worlds with low rank whose true preferences are known, and what the real absorb and the real lessons make of their events."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from infra.settings import Settings
from models.hashing import stable_hash
from models.lessons import context_weights
from models.mf_steps import N_FACTORS
from models.user_row import N_ITEMS
from streams.engine import Engine, LogRecord
from streams.lessons import pack

START_MS = 1_500_000_000_000
BATCH = 512


class World(NamedTuple):
    """Events in order: `users`, `items` (n,), `values` (n,) or None; `truth` (n_users, n_items): how much each would be liked;
    `held` (n_users, n_items) bool: pairs that are in no event."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray | None
    truth: np.ndarray
    held: np.ndarray


def rated_world(seed: int, *, n_users: int, n_items: int, n_rated: int, n_held: int) -> World:
    """Ratings of 1 to 5 with biases and noise. People rate rather what they like, and what is on show; both at random."""
    rng = np.random.default_rng(seed)
    tastes, traits = rng.normal(size=(n_users, 3)), rng.normal(size=(n_items, 3))
    truth = 3.3 + rng.normal(size=(n_users, 1)) * 0.4 + rng.normal(size=n_items) * 0.4 + 0.9 * tastes @ traits.T / np.sqrt(3)
    on_show = -0.25 * np.log(1 + rng.permutation(n_items))
    order = np.argsort(-(on_show + 0.5 * truth + rng.gumbel(size=truth.shape)), axis=1)
    held = np.zeros(truth.shape, bool)
    for user in range(n_users):
        held[user, rng.choice(order[user, n_rated:], n_held, replace=False)] = True
    events = rng.permutation(n_users * n_rated)
    users, items = np.repeat(np.arange(n_users), n_rated)[events], order[:, :n_rated].ravel()[events]
    values = np.clip(np.round(truth[users, items] + 0.5 * rng.normal(size=len(events))), 1, 5)
    return World(users, items, values, truth, held)


def taken_world(seed: int, *, n_users: int, n_items: int, n_taken: int, n_held: int) -> World:
    """Each takes `n_taken` items, all different, by popularity and taste; of these `n_held` are held out."""
    rng = np.random.default_rng(seed)
    tastes, traits = rng.normal(size=(n_users, 4)), rng.normal(size=(n_items, 4))
    truth = -np.log(1 + rng.permutation(n_items)) + 0.75 * tastes @ traits.T
    taken = np.argsort(-(truth + rng.gumbel(size=truth.shape)), axis=1)[:, :n_taken]
    taken = rng.permuted(taken, axis=1)
    held = np.zeros(truth.shape, bool)
    np.put_along_axis(held, taken[:, :n_held], True, axis=1)
    events = rng.permutation(n_users * (n_taken - n_held))
    users = np.repeat(np.arange(n_users), n_taken - n_held)[events]
    return World(users, taken[:, n_held:].ravel()[events], None, truth, held)


def learned(world: World, *, passes: int = 1, seed: int = 0, **settings: Any) -> np.ndarray:
    """Logits of the factors for every user and item, (n_users, n_items), after the events have gone through absorb and lessons.

    Between passes users are silent for longer than rows are kept: each begins with empty histories.
    """
    retention_s = 90 * 86_400
    engine = Engine(Settings(partitions=1, retention_s=retention_s, **settings))
    users, learner, rng = engine.state.users, engine.state.learner, np.random.default_rng(seed)
    n = len(world.users)
    for turn in range(passes):
        order = np.arange(n) if turn == 0 else rng.permutation(n)
        first_ms = START_MS + turn * 3 * retention_s * 1000
        records = [
            LogRecord(turn * n + k, START_MS * 2, _event(world, event, turn * n + k, first_ms + k * 1000))
            for k, event in enumerate(order.tolist())
        ]
        for start in range(0, n, BATCH):
            part = records[start : start + BATCH]
            decoded = users.decode(0, part)
            assert not decoded.rejected
            users.admit(0, decoded, [None] * len(decoded.missing))
            users.absorb(0, decoded, part[-1].offset + 1)
            users.take_records(0)
            for message in pack([users.take_lessons(0)]):
                learner.learn(learner.take(learner.position, message))
    factors, rows = learner.factors, users.table.rows[[users.table.slots[0][f"u{user}"] for user in range(len(world.truth))]]
    vectors, weights = np.zeros((len(rows), N_FACTORS)), np.zeros(N_ITEMS)
    for vector, row in zip(vectors, rows, strict=True):
        assert context_weights(row, row["clock_ms"], False, users.context_rules, weights)
        n_items = int(row["n_items"])
        vector += weights[:n_items] @ factors.x[factors.slots(row["items"][:n_items])] / weights[:n_items].sum()
    slots = factors.slots(np.array([stable_hash(f"i{item}") for item in range(world.truth.shape[1])], np.uint64))
    assert (slots >= 0).all()
    return np.asarray(vectors @ factors.y[slots].T)


def _event(world: World, k: int, number: int, time_ms: int) -> bytes:
    event = {"event_id": f"e{number}", "user_id": f"u{world.users[k]}", "item_id": f"i{world.items[k]}", "timestamp": time_ms,
             "event_type": "purchase" if world.values is None else "rating"}
    if world.values is not None:
        event["value"] = float(world.values[k])
    return json.dumps(event).encode()


def pairs_in_order(scores: np.ndarray, world: World) -> float:
    """Of a user's pairs of held-out items, how many stand in the order of the truth; mean over users, a tie is half."""
    shares = []
    for user in range(len(scores)):
        held = np.flatnonzero(world.held[user])
        one, other = np.triu_indices(len(held), 1)
        by_score = np.sign(scores[user, held[one]] - scores[user, held[other]])
        by_truth = np.sign(world.truth[user, held[one]] - world.truth[user, held[other]])
        shares.append((by_score * by_truth + 1).mean() / 2)
    return float(np.mean(shares))


def recall_and_ndcg(scores: np.ndarray, world: World, k: int = 10) -> tuple[float, float]:
    """Recall@2k and NDCG@k of the held-out items, among all that the user has not taken."""
    scores = scores.astype(np.float64).copy()
    scores[world.users, world.items] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, : 2 * k]
    hits = np.take_along_axis(world.held, best, axis=1)
    n_held = world.held[0].sum()
    discounts = 1 / np.log2(np.arange(k) + 2)
    return float(hits.sum(axis=1).mean() / n_held), float((hits[:, :k] @ discounts).mean() / discounts[:n_held].sum())
