"""Retrieval finds the best dot products: all of them in small catalogues, nearly all in large ones, of vectors as they are now."""

from __future__ import annotations

import numpy as np
import pytest

from models import inverted_lists
from models.retrieval import Retrieval
from models.top import exact_search

D = 16


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    dots = queries @ vectors.T
    order = np.argsort(-dots, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(dots, order, axis=1)


def world(n: int, n_queries: int = 48, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Items of many small kinds; a user likes one kind, and what is popular."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(0, 1, (n // 40 + 1, D))
    popular = rng.exponential(0.5, (n, 1)) * np.full(D, 0.5)
    vectors = kinds[rng.integers(len(kinds), size=n)] + rng.normal(0, 0.3, (n, D)) + popular
    queries = kinds[rng.integers(len(kinds), size=n_queries)] + rng.normal(0, 0.3, (n_queries, D)) + 0.2
    return queries.astype(np.float32), vectors.astype(np.float32)


def lists(vectors: np.ndarray) -> Retrieval:
    """One that never searches all, and has looked at everything once."""
    found = Retrieval(exact_up_to=0)
    for _ in range(-(-len(vectors) // 256)):
        found.keep(vectors)
    return found


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("n", [1, 99, 100, 101, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_exact_search_is_brute_force(n: int, k: int) -> None:
    queries, vectors = world(n)
    slots, scores = Retrieval().search(queries, vectors, k)
    assert slots.shape == scores.shape == (len(queries), min(n, k))
    right, best = brute_force(queries, vectors, k)
    assert np.allclose(scores, best, rtol=1e-5, atol=1e-5)
    assert (slots == right).mean() > 0.999  # sums in another order may turn two nearly equal ones round


@pytest.mark.parametrize("n", [5, 300, 4500])
def test_ties_go_to_the_lower_slot(n: int) -> None:
    whole = np.random.default_rng(n).integers(-1, 2, (n, D)).astype(np.float32)  # sums of whole numbers are exact
    queries = np.random.default_rng(n + 1).integers(-1, 2, (20, D)).astype(np.float32)
    queries[0] = 0
    slots, scores = exact_search(queries, whole, 50)
    right, best = brute_force(queries, whole, 50)
    assert np.array_equal(slots, right)
    assert np.array_equal(scores, best)


@pytest.mark.parametrize("low", [-1e3, -1e-6, 1e3, 1e6])
def test_scores_that_lie_close_together_or_far_from_zero(low: float) -> None:
    vectors = np.random.default_rng(3).uniform(0, 1e-3, (3000, 1)).astype(np.float32) + np.float32(low)
    slots, scores = exact_search(np.ones((2, 1), np.float32), vectors, 100)
    right, best = brute_force(np.ones((2, 1), np.float32), vectors, 100)
    assert np.array_equal(slots, right)
    assert np.array_equal(scores, best)


def test_no_vectors_and_no_queries() -> None:
    assert Retrieval().search(np.ones((3, D), np.float32), np.empty((0, D), np.float32), 5)[0].shape == (3, 0)
    assert Retrieval().search(np.empty((0, D), np.float32), np.ones((9, D), np.float32), 5)[0].shape == (0, 5)


def test_lists_find_nearly_all_and_give_their_true_scores() -> None:
    queries, vectors = world(20_000)
    slots, scores = lists(vectors).search(queries, vectors, 100)
    assert recall(slots, brute_force(queries, vectors, 100)[0]) > 0.98
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, slots, axis=1), rtol=1e-4, atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 100 for row in slots.tolist())


def test_lists_read_only_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, vectors = world(20_000)
    few, many = lists(vectors), lists(vectors)
    few.read, many.read = 20.0, 170.0
    right = brute_force(queries, vectors, 100)[0]
    assert recall(few.search(queries, vectors, 100)[0], right) < recall(many.search(queries, vectors, 100)[0], right)


def test_vectors_that_move_have_their_scores_of_now() -> None:
    queries, vectors = world(8_000)
    found = lists(vectors)
    moved = vectors + np.random.default_rng(5).normal(0, 0.15, vectors.shape).astype(np.float32)
    slots, scores = found.search(queries, moved, 100)
    assert np.allclose(scores, np.take_along_axis(queries @ moved.T, slots, axis=1), rtol=1e-4, atol=1e-4)
    assert recall(slots, brute_force(queries, moved, 100)[0]) > 0.95


def test_lists_follow_vectors_into_another_world() -> None:
    queries, vectors = world(6_000)
    found = lists(vectors)
    others_queries, others = world(6_000, seed=77)
    before = recall(found.search(others_queries, others, 100)[0], brute_force(others_queries, others, 100)[0])
    for _ in range(3 * 6_000 // 16):
        found.keep(others)
    after = recall(found.search(others_queries, others, 100)[0], brute_force(others_queries, others, 100)[0])
    assert after > 0.97 > before


def test_a_young_item_that_moves_far_is_found_again_soon() -> None:
    queries, vectors = world(8_000)
    vectors[-20:] = 0.01 * vectors[:20]  # hardly learned yet
    found = lists(vectors)
    vectors[-20:] = 3 * queries[:20]
    for _ in range(10):
        found.keep(vectors)
    slots, _ = found.search(queries[:20], vectors, 10)
    best = brute_force(queries[:20], vectors, 1)[0]
    assert best.min() >= 7_980 and np.array_equal(slots[:, :1], best)


def test_a_new_item_is_found_at_once() -> None:
    queries, vectors = world(6_000)
    found = lists(vectors)
    found.search(queries, vectors, 10)
    more = np.concatenate([vectors, 3 * queries[:5]])
    slots, _ = found.search(queries[:5], more, 10)
    assert slots[:, 0].tolist() == list(range(6_000, 6_005))


def test_every_slot_stands_in_one_list_however_it_grew() -> None:
    _, vectors = world(9_000)
    found = Retrieval(exact_up_to=0)
    sizes = [500, 900, 901, 2_500, 2_900, 5_000, 9_000]
    for n in sizes:
        found.search(vectors[:3], vectors[:n], 10)
    index = found._index
    stand = [index.members[at, : index.sizes[at]] for at in range(found.n_lists)]
    assert sorted(np.concatenate(stand).tolist()) == list(range(9_000))
    assert all((index.list_of[slots] == at).all() for at, slots in enumerate(stand))
    assert all((index.place[slots] == np.arange(len(slots))).all() for slots in stand)
    assert max(map(len, stand)) <= inverted_lists.length_of(9_000)


def test_vectors_that_are_all_the_same() -> None:
    vectors = np.ones((3_000, D), np.float32)
    found = lists(vectors)
    slots, scores = found.search(np.ones((2, D), np.float32), vectors, 100)
    assert (scores == D).all() and all(len(set(row)) == 100 for row in slots.tolist())
    vectors[:] = 0
    slots, scores = found.search(np.ones((2, D), np.float32), vectors, 100)
    assert (scores == 0).all()


def test_lists_do_not_get_more_and_more() -> None:
    found = Retrieval(exact_up_to=0)
    _, vectors = world(3_000)
    for turn in range(6):
        _, vectors = world(3_000, seed=turn)
        for _ in range(150):
            found.keep(vectors)
    used = np.isfinite(found._index.halves[: found.n_lists]).sum()
    assert used <= 4 * 3_000 / inverted_lists.length_of(3_000) + 1
    assert sorted(np.concatenate([found._index.members[at, : found._index.sizes[at]] for at in range(found.n_lists)])) == list(range(3_000))


def test_fewer_vectors_than_before_start_anew() -> None:
    queries, vectors = world(6_000)
    found = lists(vectors)
    slots, _ = found.search(queries, vectors[:1_000], 10)
    assert slots.max() < 1_000
    assert recall(slots, brute_force(queries, vectors[:1_000], 10)[0]) > 0.95


def test_same_calls_same_answers() -> None:
    queries, vectors = world(6_000)
    answers = []
    for _ in range(2):
        found = Retrieval(exact_up_to=0)
        moving = vectors.copy()
        for turn in range(20):
            moving += np.random.default_rng(turn).normal(0, 0.01, moving.shape).astype(np.float32)
            answer = found.search(queries, moving, 20)
        answers.append(answer)
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))


def test_answers_do_not_depend_on_who_else_asks() -> None:
    queries, vectors = world(6_000)
    together = lists(vectors).search(queries, vectors, 20)[0]
    apart = lists(vectors)
    one = apart.search(queries[:1], vectors, 20)[0]
    assert np.array_equal(one[0], together[0])
