"""Online matrix factors: worlds whose right answer is known, bounds that hold for ever, and the same bits for the same log."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import models.mf
from models.lessons import LESSON, Lessons
from models.mf import MatrixFactors
from models.mf_steps import MAX_NORM


def lessons(contexts: np.ndarray, targets: np.ndarray, *, weight: float = 1.0, back: int = 0) -> Lessons:
    """Lessons with contexts (n, k) and targets (n,) of item numbers >= 1."""
    heads = np.zeros(len(targets), LESSON)
    heads["item"], heads["weight"], heads["n_context"], heads["n_back"] = targets, weight, contexts.shape[1], back
    return Lessons(heads, contexts.astype(np.uint64).ravel(), np.full(contexts.size, 255, np.uint8))


def logits(model: MatrixFactors, contexts: np.ndarray, items: np.ndarray) -> np.ndarray:
    users = np.stack([model.x[model.slots(context.astype(np.uint64))].mean(axis=0) for context in contexts])
    return np.asarray(users @ model.y[model.slots(items.astype(np.uint64))].T)


def test_example() -> None:
    assert doctest.testmod(models.mf).failed == 0


def test_it_learns_the_probabilities_of_what_comes_next() -> None:
    """With single-item contexts and more factors than items the best a softmax can do is the table of P(next | item) itself."""
    rng = np.random.default_rng(5)
    n = 12
    truth = rng.dirichlet(np.full(n, 0.7), n)
    before = rng.integers(0, n, 60_000)
    after = np.array([rng.choice(n, p=truth[b]) for b in before])
    model = MatrixFactors()
    items = np.arange(1, n + 1)
    model.teach(lessons(before[:, None] + 1, after + 1))
    scores = logits(model, items[:, None], items)
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)

    def divergence(guess: np.ndarray) -> float:
        return float((truth * np.log((truth + 1e-9) / (guess + 1e-9))).sum(axis=1).mean())

    popular = np.tile(np.bincount(after, minlength=n) / len(after), (n, 1))
    assert divergence(found) < 0.15 and divergence(popular) > 0.4


def test_contexts_add_up() -> None:
    """What follows both of two items follows them together most of all, though they never stood together before."""
    rng = np.random.default_rng(6)
    model = MatrixFactors()
    follows = {1: (11, 13), 2: (12, 13)}
    before = rng.integers(1, 3, 4_000)
    after = np.array([follows[int(b)][rng.integers(2)] for b in before])
    model.teach(lessons(before[:, None], after))
    scores = logits(model, np.array([[1, 2]]), np.array([11, 12, 13]))[0]
    assert scores.argmax() == 2


def test_a_new_item_is_found_after_its_first_event() -> None:
    rng = np.random.default_rng(7)
    model = MatrixFactors()
    groups = rng.integers(0, 10, 30_000)
    model.teach(lessons(groups[:, None] * 10 + rng.integers(1, 10, (30_000, 2)), groups * 10 + rng.integers(1, 10, 30_000)))
    model.teach(lessons(np.array([[31, 32]]), np.array([999])))
    items = np.concatenate([np.arange(1, 100), [999]])
    items = items[items % 10 != 0]
    scores = logits(model, np.array([[33, 34], [71, 72]]), items)
    places = (scores >= scores[:, -1:]).sum(axis=1)
    assert places[0] <= 20 < places[1], "among the best for those who have what its one user had, and not for others"


def test_dislikes_push_away() -> None:
    rng = np.random.default_rng(8)
    likes, both = MatrixFactors(), MatrixFactors()
    before, after = rng.integers(1, 5, 2_000), rng.integers(11, 15, 2_000)
    for model in (likes, both):
        model.teach(lessons(before[:, None], after))
    both.teach(lessons(np.ones((200, 1), np.int64), np.full(200, 11), weight=-3.0))
    one = np.array([[1]])
    items = np.arange(11, 15)
    before_that, after_that = logits(likes, one, items)[0], logits(both, one, items)[0]
    assert after_that[0] < before_that[0] - 0.5 and after_that.argmin() == 0
    assert np.abs(after_that[1:] - before_that[1:]).max() < 0.1, "the others stay where they were"
    assert np.isfinite(both.y).all()


def test_few_dislikes_are_enough() -> None:
    """An item that everybody expects as little as any other is expected less after a few dislikes, by those who are like them."""
    rng = np.random.default_rng(8)
    model = MatrixFactors()
    model.teach(lessons(rng.integers(1, 5, 4_000)[:, None], rng.integers(11, 111, 4_000)))
    one, items = np.array([[1]]), np.arange(11, 111)
    before = logits(model, one, items)[0]
    middle = items[np.argsort(before)[50]]
    model.teach(lessons(np.ones((5, 1), np.int64), np.full(5, middle), weight=-3.0))
    after = logits(model, one, items)[0]
    assert (after < after[middle - 11]).sum() <= 5, "now among the last"


def test_the_same_log_gives_the_same_bits() -> None:
    rng = np.random.default_rng(9)
    log = lessons(rng.integers(1, 300, (5_000, 3)), rng.integers(1, 300, 5_000), back=2)
    one, other = MatrixFactors(), MatrixFactors()
    one.teach(log)
    other.teach(log)
    assert one.dump() == other.dump()


def test_room_is_for_items_not_for_lessons() -> None:
    """A backlog names the same few items half a million times a message."""
    rng = np.random.default_rng(4)
    model = MatrixFactors()
    for _ in range(3):
        model.teach(lessons(rng.integers(1, 900, (20_000, 3)), rng.integers(1, 900, 20_000)))
    assert model.n_items == 899
    assert len(model.index[0]) <= 4 * 1024
    model.teach(lessons(rng.integers(1, 2_000, (20_000, 3)), rng.integers(1, 2_000, 20_000)))
    assert model.n_items == 1_999 and (model.slots(model.hashes) == np.arange(1_999)).all()


def test_compiled_or_loaded_from_the_cache_gives_the_same_bits(tmp_path: Path) -> None:
    """Workers of one release must agree, whichever of them was the first to compile."""
    code = """
import hashlib, numpy as np
from models.lessons import LESSON, Lessons
from models.mf import MatrixFactors
rng, heads = np.random.default_rng(0), np.zeros(1500, LESSON)
heads["item"], heads["n_context"], heads["n_back"] = rng.integers(1, 25, 1500), 5, 2
heads["weight"] = np.where(rng.random(1500) < 0.15, -3.0, 1.0)
model = MatrixFactors()
model.teach(Lessons(heads, rng.integers(1, 25, 7500).astype(np.uint64), rng.integers(1, 255, 7500).astype(np.uint8)))
print(hashlib.sha1(model.dump()).hexdigest())
"""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    first, second = (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240, check=True).stdout
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("world", ["two items for ever", "weights at the limit", "everything is new"])
def test_nothing_grows_without_bounds(world: str) -> None:
    """10 million lessons in all, the kind that drives a model without bounds to infinity."""
    rng = np.random.default_rng(10)
    n = 20_000
    model = MatrixFactors()
    if world == "two items for ever":
        log, rounds = lessons(np.ones((n, 1), np.int64), np.full(n, 2), back=1), 410
    elif world == "weights at the limit":
        log, rounds = lessons(rng.integers(1, 40, (n, 2)), rng.integers(1, 40, n)), 80
        log.heads["weight"] = np.where(rng.random(n) < 0.3, -1e6, 1e6)
    else:
        log, rounds = lessons(rng.integers(1, 2**40, (n, 2)), rng.integers(1, 2**40, n), back=2), 10
    for _ in range(rounds):
        model.teach(log)
    for vectors in (model.x, model.y):
        assert np.isfinite(vectors).all()
        assert np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1)).max() <= MAX_NORM * 1.001
    # and it still learns
    model.teach(lessons(np.full((5_000, 1), 7), np.full(5_000, 8)))
    scores = logits(model, np.array([[7]]), np.array([8, 1, 2] if world == "two items for ever" else [8, 7]))[0]
    assert scores.argmax() == 0
