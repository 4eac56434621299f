"""The factors against what is known to be right, or to be good: true preferences, river's BiasedMF, implicit ALS solved exactly.

All see the same events in the same order; ours once through the real absorb and lessons, and they learn a ranking from what
comes next, from neither ratings nor tables. Figures in the tests are of four seeds, measured when the bounds were set.
"""

from __future__ import annotations

import numpy as np

from tests.models.worlds import World, learned, pairs_in_order, rated_world, recall_and_ndcg, taken_world

#: Tastes of these worlds stand still, so an old item says as much as a new one; and their order is drawn, so there are no sessions.
STILL = {"mf_recency": 1.0, "covisitation_window_s": 60}


def biased_mf(world: World) -> np.ndarray:
    """What river makes of the same ratings, in the same order, once; the best of a grid of rates, sizes and decays."""
    from river import optim, reco

    model = reco.BiasedMF(n_factors=10, bias_optimizer=optim.SGD(0.1), latent_optimizer=optim.SGD(0.1), l2_bias=0.02, l2_latent=0.02,
                          latent_initializer=optim.initializers.Normal(sigma=0.1, seed=7), seed=7)
    assert world.values is not None
    for user, item, value in zip(world.users.tolist(), world.items.tolist(), world.values.tolist(), strict=True):
        model.learn_one(user, item, value)
    users, items = (np.stack([vectors[k] for k in range(n)]) for vectors, n in zip((model.u_latents, model.i_latents), world.truth.shape, strict=True))
    return np.asarray(users @ items.T + np.array([model.i_biases[item] for item in range(world.truth.shape[1])]))


def implicit_als(world: World, *, n_factors: int = 8, confidence: float = 5.0, decay: float = 20.0, turns: int = 15) -> np.ndarray:
    """Implicit ALS (Hu, Koren, Volinsky 2008), each turn solved exactly for all users, then all items; the best of a grid.

    Least of sum c_ui (p_ui - x_u . y_i)^2 + decay (|X|^2 + |Y|^2), where p is 1 and c is 1 + confidence for what was taken,
    0 and 1 for all else: x_u = (Y'C_u Y + decay)^-1 Y'C_u p_u.
    """
    taken = np.zeros(world.truth.shape)
    taken[world.users, world.items] = 1
    items = np.random.default_rng(0).normal(size=(taken.shape[1], n_factors)) * 0.1

    def solved(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        outer = (given[:, :, None] * given[:, None, :]).reshape(len(given), -1)
        left = given.T @ given + decay * np.eye(n_factors) + confidence * (wanted @ outer).reshape(-1, n_factors, n_factors)
        return np.asarray(np.linalg.solve(left, ((1 + confidence) * wanted @ given)[:, :, None])[:, :, 0])

    for _ in range(turns):
        users = solved(items, taken)
        items = solved(users, taken.T)
    return np.asarray(users @ items.T)


def everybody_alike(world: World, scores: np.ndarray) -> np.ndarray:
    """(n_items,) as scores of all users."""
    return np.tile(scores, (len(world.truth), 1))


def counts(world: World) -> np.ndarray:
    return np.bincount(world.items, minlength=world.truth.shape[1]).astype(np.float64)


def test_ratings_order_what_was_not_rated_better_than_biased_mf() -> None:
    """Pairs in the right order: ours .830 to .841, BiasedMF .792 to .796, mean ratings .615 to .645, values not read .614 to .631."""
    world = rated_world(0, n_users=800, n_items=200, n_rated=40, n_held=20)
    assert world.values is not None
    ours = pairs_in_order(learned(world, **STILL), world)
    rival = pairs_in_order(biased_mf(world), world)
    means = np.bincount(world.items, weights=world.values, minlength=200) / np.maximum(counts(world), 1)
    assert rival > 0.77, "the rival is at its best, or this says nothing"
    assert ours > rival + 0.02
    assert ours > pairs_in_order(everybody_alike(world, means), world) + 0.15
    assert ours > pairs_in_order(everybody_alike(world, counts(world)), world) + 0.15
    assert ours > pairs_in_order(learned(world, rating_scale="", **STILL), world) + 0.15, "it is the values that tell"


def test_what_will_be_taken_is_found_nearly_as_well_as_by_implicit_als() -> None:
    """Recall@20 and NDCG@10: ours .589 to .624 and .426 to .461, ALS .593 to .627 and .453 to .487, popularity .431 to .450 and
    .298 to .312."""
    world = taken_world(0, n_users=1_500, n_items=200, n_taken=25, n_held=5)
    ours = np.array(recall_and_ndcg(learned(world, passes=3, **STILL), world))
    exact = np.array(recall_and_ndcg(implicit_als(world), world))
    popular = np.array(recall_and_ndcg(everybody_alike(world, counts(world)), world))
    best = np.array(recall_and_ndcg(world.truth, world))
    assert (exact > popular + 0.1).all() and (best > exact).all(), "the solution is one, or this says nothing"
    assert (ours > exact - (0.02, 0.045)).all()
    assert (ours > popular + 0.75 * (exact - popular)).all()
