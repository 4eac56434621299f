"""Training: what can be learned is learned, killed and resumed is never killed, warm starts keep what was known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from models.transformer.config import TrainConfig  # noqa: E402
from models.transformer.data import DataError, Sequences  # noqa: E402
from models.transformer.evaluation import prefix_ranks, ranks  # noqa: E402
from models.transformer.export import item_vectors, text_vectors  # noqa: E402
from models.transformer.training import CheckpointError, Progress, fit  # noqa: E402
from models.transformer.weights import ITEMS, Weights  # noqa: E402
from tests.models.transformer.worlds import N_ITEMS, QUICK, SMALL, ragged, ring, sequences  # noqa: E402


def same(one: Weights, other: Weights) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)


@pytest.mark.parametrize("loss", ["full", "sampled"])
@pytest.mark.parametrize("block", ["sasrec", "ligr", "hstu"])
def test_a_chain_without_chance_is_learned(block: str, loss: str) -> None:
    weights = fit(ring(), N_ITEMS, replace(SMALL, block=block), replace(QUICK, loss=loss, epochs=20))  # type: ignore[arg-type]
    assert (prefix_ranks(weights, ring(20)) == 1).mean() > 0.99


def test_what_was_before_the_last_item_is_used() -> None:
    """Behind (a, b) comes a: the last item alone says nothing."""
    rng = np.random.default_rng(1)
    first, second = rng.integers(N_ITEMS, size=(2, 300))
    world = sequences(np.stack([first, second, first], 1))
    weights = fit(world, N_ITEMS, SMALL, replace(QUICK, epochs=30, tokens=64))
    assert (ranks(weights, world.keep(np.tile([True, True, False], 300)), first) == 1).mean() > 0.95


def test_time_is_used_where_there_is_a_clock() -> None:
    """Two minutes behind an item comes its follower, two days behind it item 0: only the clock tells, on what came before."""
    rng = np.random.default_rng(2)
    first = rng.integers(1, N_ITEMS // 2, size=300)
    slow = rng.random(300) < 0.5
    items = np.stack([first, np.full(300, N_ITEMS - 1), np.where(slow, 0, first + 1)], 1)
    times = np.stack([np.zeros(300), np.where(slow, 172_800_000, 120_000), np.where(slow, 172_900_000, 180_000)], 1).astype(np.int64)
    world = sequences(items, times_ms=times)
    history, wanted = world.keep(np.tile([True, True, False], 300)), items[:, 2]
    train = replace(QUICK, epochs=30, tokens=64)
    with_clock = fit(world, N_ITEMS, replace(SMALL, time=True), train)
    without = fit(world, N_ITEMS, SMALL, train)
    assert (ranks(with_clock, history, wanted) == 1).mean() > 0.95
    assert (ranks(without, history, wanted) == 1).mean() < 0.75


def test_equal_seeds_equal_weights_and_other_seeds_others() -> None:
    model = replace(SMALL, dropout=0.3)
    one, two, other = (fit(ragged(), N_ITEMS, model, replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert same(one, two) and not same(one, other)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_killed_and_resumed_is_never_killed(loss: str, tmp_path: Path) -> None:
    model, train = replace(SMALL, dropout=0.3), replace(QUICK, loss=loss, tokens=32, checkpoint_s=0.0)  # type: ignore[arg-type]
    world, file = ragged(n_users=60), tmp_path / "checkpoint"
    kills, steps = [], 0

    def kill(now: Progress) -> None:
        nonlocal steps
        steps = now.n_steps
        if now.step > 10 * (len(kills) + 1):
            kills.append(now.step)
            raise KeyboardInterrupt

    whole = fit(world, N_ITEMS, model, train)
    while True:
        try:
            resumed = fit(world, N_ITEMS, model, train, checkpoint=file, progress=kill)
            break
        except KeyboardInterrupt:
            continue
    assert len(kills) >= 3 and steps > 30
    assert same(whole, resumed)
    assert same(whole, fit(world, N_ITEMS, model, train, checkpoint=file))
    with pytest.raises(CheckpointError, match="another|other data"):
        fit(ragged(1), N_ITEMS, model, train, checkpoint=file)


def test_parts_of_a_step_add_up_to_the_step() -> None:
    train = replace(QUICK, loss="full", epochs=2)
    whole, parts = fit(ragged(), N_ITEMS, SMALL, train), fit(ragged(), N_ITEMS, SMALL, replace(train, accumulate=4))
    assert all(np.allclose(whole.arrays[name], parts.arrays[name], atol=2e-3) for name in whole.arrays)


def test_a_warm_start_keeps_what_was_known() -> None:
    old = fit(ring(), N_ITEMS, SMALL, replace(QUICK, epochs=20))
    known = np.concatenate([np.arange(N_ITEMS)[::-1], [-1, -1]]).astype(np.int32)  # in another order, and two new ones
    nothing = Sequences(np.empty(0, np.int32), np.empty(0, np.uint8), None, np.empty(0, np.int64))
    warm = fit(nothing, N_ITEMS + 2, SMALL, QUICK, start=old, known=known)
    assert (warm.arrays[ITEMS][:N_ITEMS] == old.arrays[ITEMS][::-1]).all()
    assert all((warm.arrays[name] == old.arrays[name]).all() for name in old.arrays if name != ITEMS)
    turned = ring(20)
    turned = Sequences((N_ITEMS - 1 - turned.items).astype(np.int32), turned.types, None, turned.ends)
    assert (prefix_ranks(warm, turned) == 1).mean() > 0.95  # two unknown items cannot have taken its place
    again = fit(turned, N_ITEMS + 2, SMALL, TrainConfig(epochs=1, tokens=256, learning_rate=1e-4), start=old, known=known)
    assert (prefix_ranks(again, turned) == 1).mean() > 0.95


def test_an_item_with_a_text_is_known_before_it_is_taken() -> None:
    """Text = place in the ring. Items of another catalogue with the same texts stand in for those that were trained."""
    texts = np.eye(N_ITEMS, dtype=np.float32)
    weights = fit(ring(), N_ITEMS, replace(SMALL, n_text=N_ITEMS), replace(QUICK, epochs=20), texts=texts)
    assert (prefix_ranks(weights, ring(20)) == 1).mean() > 0.95
    new = text_vectors(weights, texts)
    known = item_vectors(weights)
    nearest = (new @ known.T).argmax(1)
    assert (nearest == np.arange(N_ITEMS)).mean() > 0.9
    with pytest.raises(DataError, match="texts are missing"):
        fit(ring(), N_ITEMS, replace(SMALL, n_text=4), QUICK)


def test_what_does_not_fit_is_said() -> None:
    old = fit(ring(5), N_ITEMS, SMALL, replace(QUICK, epochs=1))
    with pytest.raises(DataError, match="same model"):
        fit(ring(5), N_ITEMS, replace(SMALL, d=8), QUICK, start=old)
    with pytest.raises(DataError, match="expected 0 to 9"):
        fit(ring(5), 10, SMALL, QUICK)
    with pytest.raises(DataError, match="rows below"):
        fit(ring(5), N_ITEMS, SMALL, QUICK, start=old, known=np.full(N_ITEMS, N_ITEMS, np.int32))


def test_weights_on_disk_are_the_weights(tmp_path: Path) -> None:
    weights = fit(ring(5), N_ITEMS, SMALL, replace(QUICK, epochs=1))
    weights.save(tmp_path / "weights.npz")
    found = Weights.load(tmp_path / "weights.npz")
    assert same(weights, found) and found.model == weights.model and found.train == weights.train


def test_progress_ends_at_the_last_step() -> None:
    said: list[Progress] = []
    fit(ring(), N_ITEMS, SMALL, QUICK, progress=said.append)
    assert said[-1].step == said[-1].n_steps and said[-1].eta_s == 0
    assert said[-1].loss < said[0].loss and said[-1].tokens_per_s > 0


@pytest.mark.parametrize("n_users", [0, 1])
def test_a_log_of_nobody_and_of_one(n_users: int) -> None:
    world = ring().take(np.arange(n_users))
    weights = fit(world, N_ITEMS, SMALL, QUICK)
    assert np.isfinite(weights.arrays[ITEMS]).all()
