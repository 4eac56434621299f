"""Two stages find what one exact stage finds, whatever the vectors look like."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models import two_stage
from models.top import exact_search
from models.two_stage import TwoStage, product_with


def vectors_of(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "without structure":
        return random.standard_normal((n, d), np.float32)
    if kind == "clusters":
        return (random.standard_normal((n // 50, d))[random.integers(0, n // 50, n)] + 0.3 * random.standard_normal((n, d))).astype(np.float32)
    if kind == "uneven dimensions":
        return random.standard_normal((n, d), np.float32) * np.geomspace(1e-3, 1e3, d).astype(np.float32)
    assert kind == "heavy tails"
    return random.standard_t(3, (n, d)).astype(np.float32)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


@pytest.mark.parametrize("kind", ["without structure", "clusters", "uneven dimensions", "heavy tails"])
@pytest.mark.parametrize(("n", "d", "k"), [(5_000, 64, 100), (30_000, 64, 100), (30_000, 17, 10), (30_000, 64, 1)])
def test_recall_hangs_on_no_structure(kind: str, n: int, d: int, k: int) -> None:
    vectors = vectors_of(kind, n, d, seed=n + d)
    queries = vectors[:40] + vectors_of(kind, n, d, seed=1)[:40] / 3
    slots, scores = TwoStage(vectors).search(queries, k)
    wanted, of_wanted = exact_search(queries, vectors, k)
    assert recall(slots, wanted) >= 0.99
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, slots, 1), rtol=1e-4, atol=1e-3)
    assert (np.diff(scores, axis=1) <= 0).all() and np.allclose(scores[:, 0], of_wanted[:, 0], rtol=1e-4)


def test_catalogues_of_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_stage, "TILE", 1_000)
    vectors = vectors_of("clusters", 10_500, 32, seed=2)
    queries = vectors[::500].copy()
    slots, _ = TwoStage(vectors).search(queries, 50)
    assert recall(slots, exact_search(queries, vectors, 50)[0]) >= 0.99


@pytest.mark.parametrize("n", [0, 1, 99, 4_096, 5_000])
def test_few_vectors_and_equal_ones(n: int) -> None:
    vectors = np.zeros((n, 8), np.float32)
    slots, scores = TwoStage(vectors).search(np.ones((3, 8), np.float32), 100)
    assert slots.shape == scores.shape == (3, min(n, 100))
    assert all(len(set(found)) == len(found) for found in slots.tolist()) and not scores.any()


def test_queries_of_nothing_and_of_one_kind() -> None:
    vectors = vectors_of("clusters", 6_000, 16, seed=3)
    search = TwoStage(vectors).search
    assert search(np.empty((0, 16), np.float32), 10)[0].shape == (0, 10)
    zero, scores = search(np.zeros((2, 16), np.float32), 10)
    assert not scores.any() and all(len(set(found)) == 10 for found in zero.tolist())


def test_the_graph_is_what_others_read_too() -> None:
    tile = np.arange(-15, 15, dtype=np.int8).reshape(3, 10)
    model = onnx.load_from_string(product_with(tile))
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), tile)
