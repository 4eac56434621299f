"""Losses against what they stand for: the plain softmax, value and gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from models.transformer import loss  # noqa: E402
from models.transformer.loss import Negatives, full_softmax, sampled_softmax  # noqa: E402


def world(n: int = 37, n_items: int = 50, d: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, d, requires_grad=True), torch.randn(n_items, d, requires_grad=True), torch.randint(n_items, (n,))


def plain(users: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(users @ vectors.T, targets, reduction="sum")


@pytest.mark.parametrize("logits", [1, 50 * 4, 10**9])
def test_chunks_equal_the_whole(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", logits)
    users, vectors, targets = world()
    expected = plain(users, vectors, targets)
    wanted = torch.autograd.grad(expected / 3, (users, vectors))
    found = full_softmax(users, vectors, targets)
    got = torch.autograd.grad(found / 3, (users, vectors))
    assert torch.allclose(found, expected, rtol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


def test_large_logits_do_not_overflow() -> None:
    users, vectors, targets = world()
    assert torch.isfinite(full_softmax(users * 1000, vectors, targets))


def test_sampled_gradients_tend_to_the_full_ones() -> None:
    """The mean over many draws of 200 (a ratio of means: the fewer, the more it is off); popularity is steep, so a wrong correction shows."""
    users, vectors, targets = world(n=20)
    popular = np.repeat(np.arange(50), (np.arange(50)[::-1] // 5 + 1) ** 2)
    draws = Negatives(popular, 50, 200, 0.2, seed=1)
    expected = torch.autograd.grad(plain(users, vectors, targets), (users, vectors))
    total = [torch.zeros_like(g) for g in expected]
    for step in range(400):
        drawn = torch.from_numpy(draws.draw(step))
        value = sampled_softmax(users, vectors[targets], targets, vectors[drawn], drawn, torch.from_numpy(draws.log_expected)[drawn])
        for sum_, part in zip(total, torch.autograd.grad(value, (users, vectors)), strict=True):
            sum_ += part / 400
    for got, wanted in zip(total, expected, strict=True):
        assert float((got - wanted).norm() / wanted.norm()) < 0.1
    uncorrected = torch.zeros_like(expected[0])
    for step in range(100):
        drawn = torch.from_numpy(draws.draw(step))
        value = sampled_softmax(users, vectors[targets], targets, vectors[drawn], drawn, torch.zeros(200))
        uncorrected += torch.autograd.grad(value, users)[0] / 100
    assert float((uncorrected - expected[0]).norm() / expected[0].norm()) > 0.15  # so the bound above is one that can fail


def test_draws_are_a_function_of_seed_step_and_part_and_come_as_often_as_said() -> None:
    draws = Negatives(np.array([3, 3, 3, 7]), 10, 1000, 0.5, seed=1)
    assert (draws.draw(4, 1) == draws.draw(4, 1)).all() and (draws.draw(4, 1) != draws.draw(5, 1)).any() and (draws.draw(4, 0) != draws.draw(4, 1)).any()
    counts = np.mean([np.bincount(draws.draw(step), minlength=10) for step in range(50)], axis=0)
    assert np.allclose(counts, np.exp(draws.log_expected), rtol=0.1)
