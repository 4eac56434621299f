"""Every baseline keeps the contract of a contender, and finds the answer of worlds in which it can be proved."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.baselines import BASELINES, GRIDS
from benchmarks.baselines.tune import recall_and_mrr_20, sampled_ranks, sides, tune
from consumers.backtest.contender import Contender, Observer, Ranking
from consumers.backtest.log import Log, make_log

HOUR_MS = 3_600_000
NEEDS = {"ials_daily": "implicit", "ials_daily_fold_in": "implicit", "bpr_daily": "implicit"}
DAILY = {"ials_daily", "ials_daily_fold_in", "bpr_daily", "eals"}
N_GROUPS, N_IN_GROUP = 3, 8


def baseline(name: str, **parameters: object) -> Contender:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    return BASELINES[name](**parameters)


@pytest.fixture(params=list(BASELINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def groups(n_users: int = 60, n_events: int = 1500, seed: int = 3) -> Log:
    """Users of three kinds; each takes the items of his kind alone, at random, an event every ten minutes."""
    random = np.random.default_rng(seed)
    users = random.integers(n_users, size=n_events)
    items = users % N_GROUPS * N_IN_GROUP + random.integers(N_IN_GROUP, size=n_events)
    return make_log("groups", users, items, 1_500_000_000_000 + np.arange(n_events) * HOUR_MS // 6, np.zeros(n_events, np.uint8))


def circle(n_users: int = 40, length: int = 30, n_items: int = 12) -> Log:
    """Everybody goes round the same circle of items, each from a place of his own: after item i comes i + 1."""
    users = np.repeat(np.arange(n_users), length)
    items = (np.tile(np.arange(length), n_users) + users * 5) % n_items
    times = 1_500_000_000_000 + np.tile(np.arange(length), n_users) * HOUR_MS + users
    return make_log("circle", users, items, times, np.zeros(len(users), np.uint8))


def kind_of_item(log: Log) -> np.ndarray:
    return np.array([int(item) // N_IN_GROUP for item in log.item_ids])


def learned(contender: Contender, log: Log, last: int, step: int = 64) -> Contender:
    contender.start(log.until(0))
    for first in range(0, last, step):
        end = min(first + step, last)
        contender.learn(log.until(end), first, end)
    return contender


def everybody(log: Log) -> np.ndarray:
    return np.arange(log.n_users, dtype=np.int32)


def now(log: Log, last: int) -> int:
    return int(log.times_ms[last - 1]) + 1


def test_every_baseline_has_a_grid_of_parameters_that_it_takes() -> None:
    assert set(GRIDS) == set(BASELINES)
    for name, grid in GRIDS.items():
        for parameter, values in grid.items():
            for value in values:
                baseline(name, **{parameter: value})


def test_names_differ() -> None:
    names = [baseline(name).name for name in BASELINES]
    assert len(set(names)) == len(names)


class TestContract:
    def test_shapes_and_order(self, name: str) -> None:
        log = groups()
        ranking = learned(baseline(name), log, 700).rank(everybody(log), now(log, 700), 10)
        assert ranking.items.shape == ranking.scores.shape == (log.n_users, 10)
        assert ranking.items.dtype == np.int32 and ranking.scores.dtype == np.float32
        assert np.isfinite(ranking.scores).all() and (np.diff(ranking.scores, axis=1) <= 0).all()
        for row in ranking.items:
            assert len(set(row.tolist())) == 10

    def test_only_what_was_seen_and_all_of_it(self, name: str) -> None:
        log = groups()
        last = 12
        ranking = learned(baseline(name), log, last).rank(everybody(log), now(log, last), log.n_items + 5)
        seen = set(log.items[:last].tolist())
        assert len(seen) < log.n_items
        for row in ranking.items:
            assert set(row.tolist()) - {-1} == seen
            assert (row[len(seen) :] == -1).all() and (row[: len(seen)] >= 0).all()

    def test_nothing_learned_nothing_ranked(self, name: str) -> None:
        log = groups()
        contender = baseline(name)
        contender.start(log.until(0))
        assert (contender.rank(everybody(log), 0, 10).items == -1).all()

    def test_the_same_log_gives_the_same_lists_also_after_a_new_start(self, name: str) -> None:
        log = groups()
        contender = baseline(name)
        lists = [learned(one, log, 500).rank(everybody(log), now(log, 500), 10) for one in (contender, baseline(name), contender)]
        for other in lists[1:]:
            np.testing.assert_array_equal(lists[0].items, other.items)
            np.testing.assert_array_equal(lists[0].scores, other.scores)

    def test_many_users_at_once_equal_one_by_one(self, name: str) -> None:
        log = groups()
        contender = learned(baseline(name), log, 700)
        together = contender.rank(everybody(log), now(log, 700), 10)
        for user in everybody(log):
            alone = contender.rank(np.array([user], np.int32), now(log, 700), 10)
            np.testing.assert_allclose(alone.scores[0], together.scores[user], rtol=1e-4, atol=1e-5)
            assert_same_but_for_near_ties(alone, together, int(user))

    def test_any_split_of_the_log_equals_any_other(self, name: str) -> None:
        if name in DAILY:
            pytest.skip("renewed when a day is over, at the end of the block in which that is seen")
        log = groups()
        lists = [learned(baseline(name), log, 500, step=step).rank(everybody(log), now(log, 500), 10) for step in (1, 64, 500)]
        for other in lists[1:]:
            np.testing.assert_array_equal(lists[0].items, other.items)

    def test_ranking_changes_nothing(self, name: str) -> None:
        log = groups()
        asked, quiet = baseline(name), baseline(name)
        for one in (asked, quiet):
            one.start(log.until(0))
        for first in range(0, 640, 64):
            for one in (asked, quiet):
                one.learn(log.until(first + 64), first, first + 64)
            asked.rank(everybody(log)[:20], now(log, first + 64), 5)
        lists = [one.rank(everybody(log), now(log, 640), 10).items for one in (asked, quiet)]
        np.testing.assert_array_equal(*lists)

    def test_a_user_of_whom_nothing_is_known_gets_a_full_list(self, name: str) -> None:
        log = groups(n_users=600, n_events=1200)
        last = 400
        new = np.setdiff1d(everybody(log), log.users[:last])
        ranking = learned(baseline(name), log, last).rank(new, now(log, last), 10)
        assert len(new) and (ranking.items >= 0).all() and (ranking.items == ranking.items[0]).all()

    def test_the_judges_own_arrays_are_left_alone(self, name: str) -> None:
        log = groups()
        for array in (log.users, log.items, log.times_ms, log.types, log.baskets):
            array.setflags(write=False)
        learned(baseline(name), log, 300).rank(everybody(log), now(log, 300), 5)


def assert_same_but_for_near_ties(alone: Ranking, together: Ranking, user: int) -> None:
    """A product of matrices may round otherwise in a batch: what then changes places must have had equal scores."""
    for place in np.flatnonzero(alone.items[0] != together.items[user]):
        close = np.isclose(together.scores[user], alone.scores[0, place], rtol=1e-4, atol=1e-5)
        assert close.sum() > 1 or place == 9


@pytest.mark.parametrize("name", ["sequential_rules", "vstan"])
def test_on_a_circle_the_next_item_comes_first(name: str) -> None:
    log = circle()
    last = len(log) * 2 // 3
    parameters = {"sequential_rules": {"steps": 1}, "vstan": {"length": 1, "before": 0.1, "here": 0.1, "near": 1.0}}[name]
    ranking = learned(baseline(name, **parameters), log, last).rank(everybody(log), now(log, last), 5)
    held = log.until(last)
    for user in everybody(log):
        item = int(log.item_ids[held.items[held.users == user][-1]])
        assert log.item_ids[ranking.items[user, 0]] == str((item + 1) % 12)


@pytest.mark.parametrize(("name", "parameters"), [
    ("own_counts", {}), ("sequential_rules", {}), ("co_occurrence", {}), ("vsknn", {}), ("vstan", {}),
    ("isgd", {"n_factors": 8}), ("raisgd", {"n_factors": 8}), ("eals", {"n_factors": 8, "missing": 0.1}),
    ("ials_daily", {"n_factors": 8}), ("ials_daily_fold_in", {"n_factors": 8}), ("bpr_daily", {"n_factors": 8, "rate": 0.1}),
    ("biased_mf", {"n_factors": 8, "rate": 0.1}),
])
def test_users_of_a_kind_get_the_items_of_their_kind(name: str, parameters: dict[str, object]) -> None:
    log = groups(n_events=3000)
    ranking = learned(baseline(name, **parameters), log, len(log)).rank(everybody(log), now(log, len(log)), N_IN_GROUP - 1)  # one item may be the user's last
    right = kind_of_item(log)[ranking.items] == (np.array([int(user) for user in log.user_ids]) % N_GROUPS)[:, None]
    assert right.mean() > 0.95


@pytest.mark.parametrize("name", ["popularity_1h", "popularity_1d", "popularity_7d", "popularity_decayed"])
def test_popularity_forgets(name: str) -> None:
    """Item 0 was taken often long ago, item 1 twice now, item 2 once now."""
    times = np.concatenate([np.arange(20), 60 * 24 * HOUR_MS + np.array([0, 1, 2])]).astype(np.int64) + 1_500_000_000_000
    log = make_log("fashion", np.arange(23), np.array([0] * 20 + [1, 1, 2]), times, np.zeros(23, np.uint8))
    ranking = learned(baseline(name), log, 23).rank(np.zeros(1, np.int32), now(log, 23), 3)
    assert [log.item_ids[item] for item in ranking.items[0]] == ["1", "2", "0"]
    early = learned(baseline(name), log, 20).rank(np.zeros(1, np.int32), now(log, 20), 3)
    assert early.items[0].tolist() == [0, -1, -1]


def test_a_window_ends_where_it_says() -> None:
    log = make_log("window", np.arange(3), np.array([0, 0, 1]), 1_500_000_000_000 + np.array([0, 1, HOUR_MS]), np.zeros(3, np.uint8))
    contender = learned(baseline("popularity_1h"), log, 3)
    for after_ms, best in ((HOUR_MS - 1, "0"), (HOUR_MS, "0"), (HOUR_MS + 1, "1")):  # 2 to 1, 1 to 1 (older counts), 0 to 1
        assert log.item_ids[contender.rank(np.zeros(1, np.int32), 1_500_000_000_000 + after_ms, 1).items[0, 0]] == best


def test_own_counts_are_the_sums_of_halves() -> None:
    """Item 0 twice two half-lives ago (0.5), item 1 once one ago (0.5) and once now (1.5), item 2 by another user."""
    day = 24 * HOUR_MS
    log = make_log("own", np.array([0, 0, 0, 1, 0]), np.array([0, 0, 1, 2, 1]), 1_500_000_000_000 + np.array([0, 0, day, day, 2 * day]),
                   np.zeros(5, np.uint8), baskets=np.arange(5))
    contender = learned(baseline("own_counts", half_life_days=1.0, popularity_weight=0.0), log, 5)
    ranking = contender.rank(np.zeros(1, np.int32), 1_500_000_000_000 + 2 * day, 3)
    assert [log.item_ids[item] for item in ranking.items[0]] == ["1", "0", "2"]
    np.testing.assert_allclose(ranking.scores[0], [1.5, 0.5, 0.0])


@pytest.mark.parametrize("name", ["own_counts", "sequential_rules", "co_occurrence", "vsknn", "vstan", "isgd", "raisgd", "eals",
                                  "ials_daily_fold_in", "biased_mf"])
def test_what_is_only_observed_moves_the_user_and_nothing_else(name: str) -> None:
    log = circle()
    last = 1000 if name in DAILY else 150  # beyond a midnight, at which these are trained
    user = int(log.users[last])
    contender = learned(baseline(name), log, last)
    assert isinstance(contender, Observer)
    before = contender.rank(everybody(log), now(log, last), 8)
    contender.observe(log.until(last + 1), last, last + 1)
    after = contender.rank(everybody(log), now(log, last), 8)
    others = everybody(log) != user
    np.testing.assert_array_equal(before.items[others], after.items[others])
    assert (before.scores[user] != after.scores[user]).any()


@pytest.mark.parametrize("name", list(BASELINES))
def test_what_was_observed_leaves_no_trace_in_what_is_learned_later(name: str) -> None:
    log = groups()
    shown, quiet = learned(baseline(name), log, 400), learned(baseline(name), log, 400)
    user = int(log.users[0])
    own = np.flatnonzero(log.users[:400] == user)[-1]
    assert isinstance(shown, Observer)
    shown.observe(log.until(own + 1), own, own + 1)
    later = np.flatnonzero(log.users != user)
    for at in later[later >= 400].tolist():
        for one in (shown, quiet):
            one.learn(log.until(at + 1), at, at + 1)
    others = everybody(log)[everybody(log) != user]
    np.testing.assert_array_equal(*(one.rank(others, now(log, len(log)), 10).items for one in (shown, quiet)))


def test_biased_mf_takes_the_steps_of_river() -> None:
    pytest.importorskip("river")
    from river import optim, reco

    from benchmarks.baselines.biased_mf import OnlineBiasedMF, rate_one

    log, random = groups(), np.random.default_rng(5)
    ours = OnlineBiasedMF(n_factors=6, deviation=0.2)
    ours.start(log.until(0))
    theirs = reco.BiasedMF(n_factors=6, bias_optimizer=optim.SGD(0.05), latent_optimizer=optim.SGD(0.05), l2_bias=0.01, l2_latent=0.01)
    theirs.u_latents.update(enumerate(ours._model.users.copy()))
    theirs.i_latents.update(enumerate(ours._model.items.copy()))
    for user, item in zip(log.users.tolist(), log.items.tolist(), strict=True):
        rating = float(random.integers(2))
        rate_one(ours._model, user, item, rating, 0.05, 0.01, True)
        theirs.learn_one(user, item, rating)
    for name, side in (("users", theirs.u_latents), ("items", theirs.i_latents), ("user_biases", theirs.u_biases), ("item_biases", theirs.i_biases)):
        vectors = getattr(ours._model, name)
        np.testing.assert_allclose(vectors, [side[k] for k in range(len(vectors))], rtol=1e-9, atol=1e-12)


def test_tuning_goes_from_the_default_to_both_sides() -> None:
    assert sides([1.0, 2.0, 3.0, 5.0, 8.0], 3.0) == [[5.0, 8.0], [2.0, 1.0]]
    assert sides([1.0, 8.0], 3.0) == [[8.0], [1.0]]
    assert sides(["user", "basket"], "user") == [["user", "basket"]]
    assert sides([False, True], False) == [[False, True]]


def test_tuning_reads_nothing_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    log, end = circle(), 900
    furthest = 0
    make = BASELINES["sequential_rules"]

    def watched(**parameters: object) -> Contender:
        contender = make(**parameters)
        learn: Callable[[Log, int, int], None] = contender.learn

        def spy(given: Log, first: int, last: int) -> None:
            nonlocal furthest
            furthest = max(furthest, last)
            assert len(given) == last
            learn(given, first, last)

        monkeypatch.setattr(contender, "learn", spy)
        return contender

    monkeypatch.setitem(BASELINES, "sequential_rules", watched)
    monkeypatch.setitem(GRIDS, "sequential_rules", {"steps": [1, 20]})
    choice = tune(log, end, "sequential_rules", sample=1.0)
    assert furthest == end and choice.n_tried == 3
    assert choice.parameters in ({}, {"steps": 1}, {"steps": 20})


def test_ties_count_against_the_target() -> None:
    """A contender that likes everything equally has every target last."""

    class Indifferent:
        name = "indifferent"

        def start(self, log: Log) -> None:
            self.n_items = log.n_items

        def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
            items = np.tile(np.arange(self.n_items, dtype=np.int32), (len(users), 1))
            return Ranking(items, np.zeros(items.shape, np.float32))

        def learn(self, log: Log, first: int, last: int) -> None:
            pass

    log = circle()
    ranks = sampled_ranks(log, Indifferent(), 400, len(log), sample=1.0, seed=1)
    assert (ranks == log.n_items).all()
    assert recall_and_mrr_20(ranks) == pytest.approx(1 + 1 / 12)
