"""Softmax losses over many items: the full one in chunks, and one over drawn negatives.

Both sum -log P(target) over places. Never binary cross-entropy with one negative: it tells likely from unlikely, not the
likeliest from the likely, and costs a quarter of the hits (Klenitskiy, Vasilev 2023; Petrov, Macdonald 2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Logits that exist at a time: 64 MiB of them. More is no faster, on a CPU and on a GPU.
CHUNK_LOGITS = 1 << 24


class _FullSoftmax(torch.autograd.Function):
    """Gradients are computed with the loss, chunk by chunk, so that no logits are kept and none is computed twice."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
        n = len(users)
        chunk = max(1, CHUNK_LOGITS // len(vectors))
        loss = users.new_zeros((), dtype=torch.float32)
        to_users = torch.empty_like(users)
        to_vectors = torch.zeros_like(vectors, dtype=torch.float32)
        for start in range(0, n, chunk):
            u, t = users[start:start + chunk], targets[start:start + chunk]
            p = (u @ vectors.T).float()  # (chunk, n_items)
            at = torch.arange(len(u), device=u.device)
            loss -= p[at, t].sum()
            top = p.amax(-1, keepdim=True)
            total = p.sub_(top).exp_().sum(-1, keepdim=True)
            loss += (top + total.log()).sum()
            p.div_(total)
            p[at, t] -= 1  # d loss / d logits
            g = p.to(u.dtype)
            to_users[start:start + chunk] = g @ vectors
            to_vectors += (g.T @ u).float()
        ctx.save_for_backward(to_users, to_vectors.to(vectors.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        to_users, to_vectors = ctx.saved_tensors
        return to_users * grads[0], to_vectors * grads[0], None


def full_softmax(users: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    """users (N, d), vectors (n_items, d), targets (N,) int64 -> sum of -log softmax(users . vectors)[target]."""
    loss: Tensor = _FullSoftmax.apply(users, vectors.to(users.dtype), targets)
    return loss


class Negatives:
    """Draws items: `uniform` of them uniformly, the rest as an event is drawn from the log, that is by popularity.

    Each step's are a function of (seed, step, part) alone.
    """

    def __init__(self, items: np.ndarray, n_items: int, n: int, uniform: float, seed: int) -> None:
        self.items, self.n_items, self.n, self.seed = items, n_items, n, seed
        self.n_uniform = round(n * uniform)
        counts = np.bincount(items, minlength=n_items)
        #: Expected number of times that an item is drawn in a step, as a logarithm (n_items,).
        self.log_expected = np.log(self.n_uniform / n_items + (n - self.n_uniform) * counts / max(len(items), 1)).astype(np.float32)

    def draw(self, step: int, part: int = 0) -> np.ndarray:
        """(n,) int64"""
        rng = np.random.default_rng([self.seed, step, part])
        uniform = rng.integers(self.n_items, size=self.n_uniform)
        return np.concatenate([uniform, self.items[rng.integers(len(self.items), size=self.n - self.n_uniform)]]).astype(np.int64)


class _SampledSoftmax(torch.autograd.Function):
    """Gradients with the loss, in place: twice as fast on a CPU as what autograd makes of the formula."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, wanted: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor, log_expected: Tensor) -> Tensor:
        positive = (users * wanted).sum(-1, keepdim=True, dtype=torch.float32)  # (N, 1)
        p = (users @ vectors.T).float().sub_(log_expected)  # (N, S)
        p[negatives[None, :] == targets[:, None]] = float("-inf")
        top = torch.maximum(p.amax(-1, keepdim=True), positive)
        p.sub_(top).exp_()
        hit = (positive - top).exp_()
        total = p.sum(-1, keepdim=True).add_(hit)
        loss = (total.log() + top - positive).sum()
        g, hit = p.div_(total).to(users.dtype), (hit / total - 1).to(users.dtype)  # d loss / d logits
        ctx.save_for_backward(torch.addcmul(g @ vectors, hit, wanted), hit * users, g.T @ users)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_users, to_wanted, to_vectors = ctx.saved_tensors
        return to_users * grads[0], to_wanted * grads[0], None, to_vectors * grads[0], None, None


def sampled_softmax(users: Tensor, wanted: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor, log_expected: Tensor) -> Tensor:
    """users (N, d), wanted (N, d): vectors of targets (N,); vectors (S, d) of negatives (S,); log_expected (S,) -> summed loss.

    A negative counts 1 / (times it was to be expected), so the sum over negatives is an unbiased estimate of the sum over all
    items but the target (Bengio, Senecal 2008: logQ); a negative that is the target is left out.
    """
    loss: Tensor = _SampledSoftmax.apply(users, wanted.to(users.dtype), targets, vectors.to(users.dtype), negatives, log_expected)
    return loss
