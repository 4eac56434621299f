"""The fusion on toy worlds: it begins as the blend, its gradients are right, it learns what is there to be learned, and it
stays a number whatever comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.blend import Blend
from models.candidates import Candidates, Histories
from models.fastlog import log_all
from models.features import CHANNELS, GHOST, MIXTURE, OWN, Features, Seen
from models.fusion import Lesson, fresh, gradient, learn, n_parameters, scores
from models.ghosts import ghost_code
from models.item_rows import DAY_MS, ITEM_ROW, N_RINGS
from models.popularity import N_FACTS, WINDOWS, Popularity
from models.reranker import Reranker
from models.user_row import EMPTY_ROW, EPOCH_MS, USER_ROW, to_ticks

NOW_MS = 1_763_778_821_000
WEIGHTS = {"repeat": 1.0, "covisitation": 0.5, "popular_7d": 0.2, "popular": 0.3}
PERSONAL = ["repeat", "covisitation"]


def world(seed: int, n_users: int = 4, n_items: int = 60, n_picks: int = 20) -> tuple[Histories, list[Candidates], Popularity, np.ndarray]:
    """Users with some own items, candidates of two channels, popularity: all drawn."""
    chance = np.random.default_rng(seed)
    item_rows = np.zeros(n_items, ITEM_ROW)
    item_rows["hash"] = np.arange(1, n_items + 1)
    rows, own = np.full(n_users, EMPTY_ROW), np.full((n_users, USER_ROW["items"].shape[0]), -1, np.int32)
    shares = np.zeros((n_users, own.shape[1]), np.float32)
    for b in range(n_users):
        n = int(chance.integers(1, 20))
        own[b, :n] = chance.permutation(n_items)[:n]
        rows[b]["n_items"], rows[b]["clock_ms"] = n, NOW_MS
        rows[b]["items"][:n] = own[b, :n] + 1
        rows[b]["seconds"][:n] = (NOW_MS - EPOCH_MS) // 1000 - np.sort(chance.integers(0, 90 * 86_400, n))[::-1]
        rows[b]["weights"][:n] = 5.0
        rows[b]["types"][:n] = 4
        shares[b, :n] = chance.dirichlet(np.ones(n))
    near = np.array([chance.permutation(n_items)[:15] for _ in range(n_users)], np.int32)
    near[:, -3:] = -1
    windows = chance.dirichlet(np.ones(n_items), N_RINGS).astype(np.float32)
    weights = np.array([WEIGHTS.get(name, 0.0) for name in WINDOWS], np.float32)
    mixture = (windows * weights[:, None]).sum(axis=0)
    facts = np.zeros((n_items, N_FACTS), np.float32)
    facts[:, :N_RINGS] = np.log(windows.T + 1e-6)
    order = np.lexsort((item_rows["hash"], -mixture)).astype(np.int32)
    popular = Popularity(mixture, (windows * weights[:, None]).argmax(axis=0).astype(np.uint8), order, order[:n_picks].copy(), facts,
                         np.arange(n_items, dtype=np.uint16))
    candidates = [
        Candidates(np.where(shares > 0, own, -1).astype(np.int32), shares),
        Candidates(near, chance.dirichlet(np.ones(15), n_users).astype(np.float32)),
    ]
    return Histories(rows, own, NOW_MS), candidates, popular, item_rows


def make() -> Reranker:
    return Reranker(PERSONAL, WEIGHTS, half_life_ms=90.0 * DAY_MS)


@pytest.mark.parametrize("seed", range(5))
def test_it_begins_as_the_fixed_blend(seed: int) -> None:
    users, candidates, popular, item_rows = world(seed, n_picks=60)
    visible = np.ones(len(item_rows), np.uint8)
    ours = make().rank(users, candidates, popular, visible, item_rows, 50)
    blend = Blend(PERSONAL, WEIGHTS).rank(users, candidates, popular, visible, item_rows, 50)
    assert (ours.items == blend.items).all()
    assert (ours.why == blend.why).all()


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_full_without_what_is_hidden_and_never_rise(seed: int) -> None:
    users, candidates, popular, item_rows = world(seed)
    fusion = make()
    visible = np.ones(len(item_rows), np.uint8)
    visible[::3] = 0
    users.rows["types"][0, :3] |= 128  # seen: never again
    ranked = fusion.rank(users, candidates, popular, visible, item_rows, 100)
    for b, items in enumerate(ranked.items):
        shown = items[items >= 0]
        assert len(set(shown.tolist())) == len(shown) == visible.sum() - (visible[users.items[0, :3]].sum() if b == 0 else 0)
        assert visible[shown].all()
        assert (np.diff(ranked.scores[b, : len(shown)]) <= 0).all() and ranked.scores[b, 0] == 1.0
    assert not set(users.items[0, :3].tolist()) & set(ranked.items[0].tolist())


def seen_by(seed: int) -> Seen:
    users, candidates, popular, _ = world(seed)
    return Features([1.0, 0.5], 90.0 * DAY_MS)(users, candidates, popular)


def test_candidates_are_the_union_and_each_stands_once() -> None:
    users, candidates, popular, _ = world(0)
    seen = seen_by(0)
    for b in range(len(users.rows)):
        wanted = {int(i) for c in candidates for i, s in zip(c.items[b], c.scores[b], strict=True) if i >= 0 and s > 0}
        items = seen.items[b, : seen.n[b]].tolist()
        assert sorted(items) == sorted(wanted | set(popular.picks.tolist()))
        assert (seen.items[b, seen.n[b] :] == -1).all()
        own = set(users.items[b][users.items[b] >= 0].tolist())
        assert {i for i, flag in zip(items, seen.phi[b, OWN], strict=False) if flag == 1.0} == own
        near = dict(zip(candidates[1].items[b].tolist(), candidates[1].scores[b].tolist(), strict=True))
        for k, item in enumerate(items):
            share = near.get(item, 0.0) if item >= 0 else 0.0
            assert seen.phi[b, CHANNELS, k] == pytest.approx((math.log(share + 1e-4) + 8.0) / 2.0, abs=1e-3)


def test_a_ghost_is_known_where_others_propose_it() -> None:
    users, candidates, popular, _ = world(0)
    item = int(next(i for i in popular.picks if i not in users.items[0]))
    users.rows[0]["ghosts"][3] = popular.fingerprints[item]
    users.rows[0]["ghost_weights"][3] = ghost_code(5.0, to_ticks(NOW_MS), 90 * DAY_MS * 0.256)
    seen = Features([1.0, 0.5], 90.0 * DAY_MS)(users, candidates, popular)
    flagged = seen.phi[:, GHOST] != 0
    assert flagged.sum() == 1 and seen.items[0, np.flatnonzero(flagged[0])[0]] == item
    assert seen.phi[0, GHOST].max() == pytest.approx(math.log(1.05) + 3.0, abs=0.02)


def test_gradients_are_those_of_the_loss() -> None:
    seen = seen_by(1)
    state = fresh(seen.phi.shape[1])
    chance = np.random.default_rng(0)
    state["theta"] += chance.normal(0, 0.1, len(state["theta"])).astype(np.float32)
    taken = np.array([seen.items[0, 0], seen.items[0, 5], 10_000, seen.items[1, 2], seen.items[3, 1]], np.int32)
    ends = np.array([3, 4, 4, 5])
    lesson = gradient(seen, taken, ends, state)
    assert (lesson.n, lesson.n_items, lesson.n_found) == (4, 5, 4)

    def loss(at: int, by: float) -> float:
        moved = state.copy()
        moved["theta"][at] += by
        return gradient(seen, taken, ends, moved).loss

    for at in chance.choice(n_parameters(seen.phi.shape[1]), 60, replace=False).tolist():
        slope = (loss(at, 1e-2) - loss(at, -1e-2)) / 2e-2
        assert lesson.gradient[at] == pytest.approx(slope, rel=0.05, abs=0.02)


def test_lessons_add_up() -> None:
    seen, state = seen_by(2), fresh(seen_by(2).phi.shape[1])
    taken, ends = np.array([seen.items[b, b] for b in range(4)], np.int32), np.arange(1, 5)
    whole = gradient(seen, taken, ends, state)
    parts = [gradient(Seen(*(a[b : b + 1] for a in seen)), taken[b : b + 1], np.array([1]), state) for b in range(4)]
    np.testing.assert_allclose(whole.gradient, sum(p.gradient for p in parts), rtol=1e-4, atol=1e-5)
    assert whole.loss == pytest.approx(sum(p.loss for p in parts), rel=1e-5)


def taught(n_steps: int, seed: int = 0) -> tuple[np.ndarray, list[float]]:
    """People take what co-visitation says, which the blend trusts less than their own items: state and loss by step."""
    state = fresh(Features([1.0, 0.5], 1.0).n_features)
    chance, losses = np.random.default_rng(seed), []
    for step in range(n_steps):
        users, candidates, popular, _ = world(step)
        seen = Features([1.0, 0.5], 90.0 * DAY_MS)(users, candidates, popular)
        near = candidates[1]
        taken = np.array([chance.choice(near.items[b, :12], p=near.scores[b, :12] / near.scores[b, :12].sum()) for b in range(4)], np.int32)
        lesson = gradient(seen, taken, np.arange(1, 5), state)
        losses.append(lesson.loss / 4)
        learn(state, lesson)
    return state, losses


def test_it_learns_whom_to_trust() -> None:
    _, losses = taught(400)
    assert np.mean(losses[:10]) > 2.8
    assert np.mean(losses[-100:]) < 2.5  # the shares' entropy is 2.2, roughly: nobody can know more


def test_the_same_lessons_give_the_same_bits() -> None:
    assert taught(50)[0].tobytes() == taught(50)[0].tobytes()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e8, 1e30, math.inf, math.nan])
def test_nothing_grows_without_bounds(size: float) -> None:
    state = fresh(20)
    chance = np.random.default_rng(0)
    for _ in range(500):
        values = (chance.normal(0, 1, len(state["theta"])) * size).astype(np.float32)
        learn(state, Lesson(values, 1, 1, 1, 0, 1.0))
    assert np.isfinite(state["theta"]).all() and np.isfinite(state["average"]).all() and np.isfinite(state["square"]).all()
    assert np.abs(state["theta"]).max() <= 30.0
    learn(state, Lesson(np.zeros(3, np.float32), 1, 1, 1, 0, 1.0))  # of another number of features: passed over


def test_scores_follow_the_average() -> None:
    seen = seen_by(3)
    state = fresh(seen.phi.shape[1])
    state["theta"][:] = 0
    np.testing.assert_allclose(scores(seen, state)[0, : seen.n[0]], 2.0 * seen.phi[0, MIXTURE, : seen.n[0]], rtol=1e-5)


def test_logarithms_of_whole_arrays() -> None:
    chance: Any = np.random.default_rng(0)
    values = np.exp(chance.uniform(-30, 30, 10_000)).astype(np.float32)
    logs = values.copy()
    log_all(logs)
    np.testing.assert_allclose(logs, np.log(values), atol=1e-4)
