"""Fusion that learns: a small network over what the channels say, taught by what users take next, test-then-learn.

score(u, i) = w . phi + v . relu(U phi + c), phi from `models.features`; the scores of a user's candidates are logits of one
softmax, and the loss of a basket is the sum over its items of -log softmax (listwise cross-entropy; Cao et al. 2007). It
starts as the fixed blend: w picks out the blend's log-score, v is 0; so a system that has learned nothing ranks as the blend.

Four pure steps: `Features` (rows -> phi), `gradient` (phi, what was taken -> a lesson), `learn` (state, lesson -> state: the
only thing that moves, by Adam steps), `scores`. Lessons are additive, so that those of one batch travel as one record, and
every replica that applies the same records in the same order holds the same bits: `learn` is free of reordered sums.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from models.features import MIXTURE, Seen

N_HIDDEN = 32
STEP = 0.004
#: After so many steps the step has fallen by the square root of 2; it falls no further than to a quarter.
HALVING = 20_000
LEAST_STEP = 0.25
MOMENTUM, MEMORY = np.float32(0.9), np.float32(0.999)
EPSILON = np.float32(1e-3)
#: Largest gradient that is learned, a hundred times what a batch of one basket of 2,048 items gives: the square of a larger
#: one could stay infinite, and its parameter where it is, for ever.
MOST = np.float32(1e9)
#: No parameter leaves this range, whatever the lessons say.
BOUND = np.float32(30.0)
#: Share of a step's theta in the running average.
AVERAGED = 0.002
#: The blend's log-score is given in halves, see `models.features`.
START = 2.0
FAST = {"reassoc", "contract", "nsz"}
VERSION = 1


def state_dtype(n_features: int) -> np.dtype[np.void]:
    """All that fusion has learned, as one record: the same bytes in memory and where it is kept."""
    n = n_parameters(n_features)
    return np.dtype(
        [
            ("version", "<u2"),
            ("n_features", "<u2"),
            ("n_hidden", "<u4"),
            ("n_steps", "<i8"),
            ("n_lessons", "<i8"),
            ("theta", "<f4", (n,)),
            ("mean", "<f4", (n,)),
            ("square", "<f4", (n,)),
            ("average", "<f4", (n,)),  # of theta, over the last steps: what lists are ranked by
        ]
    )


def n_parameters(n_features: int) -> int:
    """Of w, v, c and U, in this order."""
    return n_features + 2 * N_HIDDEN + N_HIDDEN * n_features


def fresh(n_features: int) -> np.ndarray:
    """The state that ranks as the fixed blend, () record. U is drawn with a fixed seed."""
    state = np.zeros((), state_dtype(n_features))
    state["version"], state["n_features"], state["n_hidden"] = VERSION, n_features, N_HIDDEN
    state["theta"][MIXTURE] = START
    random = np.random.Generator(np.random.PCG64(0)).standard_normal((N_HIDDEN, n_features))
    state["theta"][n_features + 2 * N_HIDDEN :] = (random / math.sqrt(n_features)).ravel()
    state["average"] = state["theta"]
    return state


class Lesson(NamedTuple):
    """What some baskets teach. `gradient` (P,) float32, summed over them; n baskets; n_items taken in all, `n_found` of them
    among the candidates; `loss` summed over these; `n_hits`: baskets of which an item stood among the first ten shown."""

    gradient: np.ndarray
    n: int
    n_items: int
    n_found: int
    n_hits: int
    loss: float


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)  # as in `models.mf_steps`: the same bits for all
def _score(phi: np.ndarray, n: int, theta: np.ndarray, out: np.ndarray, hidden: np.ndarray) -> None:
    # hidden (N_HIDDEN, M) is filled with what the units say, for the way back; loops run along candidates
    n_features = phi.shape[0]
    at_v, at_c, at_u = n_features, n_features + N_HIDDEN, n_features + 2 * N_HIDDEN
    for k in range(n):
        out[k] = 0
    for f in range(n_features):
        w = theta[f]
        for k in range(n):
            out[k] += w * phi[f, k]
    for j in range(N_HIDDEN):
        h = hidden[j]
        for k in range(n):
            h[k] = theta[at_c + j]
        for f in range(n_features):
            u = theta[at_u + j * n_features + f]
            for k in range(n):
                h[k] += u * phi[f, k]
        v = theta[at_v + j]
        for k in range(n):
            h[k] = max(h[k], np.float32(0))
            out[k] += v * h[k]


@nb.njit(cache=True, nogil=True)
def _scores(phi: np.ndarray, n: np.ndarray, theta: np.ndarray, out: np.ndarray) -> None:
    hidden = np.empty((N_HIDDEN, phi.shape[2]), np.float32)
    for b in range(phi.shape[0]):
        _score(phi[b], n[b], theta, out[b], hidden)


def scores(seen: Seen, state: np.ndarray) -> np.ndarray:
    """Logits of all candidates, (B, M) float32; nothing is said of those behind a user's last."""
    out = np.full(seen.items.shape, -np.inf, np.float32)
    _scores(seen.phi, seen.n, state["average"], out)
    return out


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)  # as in `models.mf_steps`: the same bits for all
def _dot(a: np.ndarray, b: np.ndarray, n: int) -> np.float32:
    total = np.float32(0)
    for k in range(n):
        total += a[k] * b[k]
    return total


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)  # as in `models.mf_steps`: the same bits for all
def _back(phi: np.ndarray, n: int, d: np.ndarray, theta: np.ndarray, hidden: np.ndarray, g: np.ndarray) -> None:
    """Add one user's part to the gradient: d (M,) is the loss's derivative by the scores. `hidden` is used up."""
    n_features = phi.shape[0]
    at_v, at_c, at_u = n_features, n_features + N_HIDDEN, n_features + 2 * N_HIDDEN
    for f in range(n_features):
        g[f] += _dot(d, phi[f], n)
    for j in range(N_HIDDEN):
        h = hidden[j]
        g[at_v + j] += _dot(d, h, n)
        v = theta[at_v + j]
        total = np.float32(0)
        for k in range(n):
            h[k] = v * d[k] if h[k] > 0 else np.float32(0)
            total += h[k]
        g[at_c + j] += total
        for f in range(n_features):
            g[at_u + j * n_features + f] += _dot(h, phi[f], n)


@nb.njit(cache=True, nogil=True)
def _gradient(
    items: np.ndarray,
    phi: np.ndarray,
    n: np.ndarray,
    taken: np.ndarray,
    ends: np.ndarray,
    theta: np.ndarray,
    gradient: np.ndarray,
) -> tuple[int, float]:
    m = items.shape[1]
    out, d, hidden = np.empty(m, np.float32), np.empty(m, np.float32), np.empty((N_HIDDEN, m), np.float32)
    wanted = np.zeros(m, np.uint8)
    n_found, loss = 0, 0.0
    start = 0
    for b in range(items.shape[0]):
        first, start = start, ends[b]
        found = 0
        for k in range(n[b]):
            wanted[k] = 0
            for t in range(first, ends[b]):
                if taken[t] == items[b, k]:
                    wanted[k] = 1
            found += wanted[k]
        if found == 0:
            continue
        n_found += found
        _score(phi[b], n[b], theta, out, hidden)
        most = out[0]
        for k in range(n[b]):
            most = max(most, out[k])
        total = 0.0
        for k in range(n[b]):
            total += math.exp(out[k] - most)
        for k in range(n[b]):
            p = math.exp(out[k] - most) / total
            d[k] = np.float32(p * found - wanted[k])
            if wanted[k]:
                loss -= math.log(max(p, 1e-30))
        _back(phi[b], n[b], d, theta, hidden, gradient)
    return n_found, loss


def gradient(seen: Seen, taken: np.ndarray, ends: np.ndarray, state: np.ndarray, n_hits: int = 0) -> Lesson:
    """What the baskets of B users teach: `taken` (T,) int32 item slots, those of user b end at ends[b]; n_hits of them stood
    in what would have been shown. Changes nothing."""
    total = np.zeros(len(state["theta"]), np.float32)
    n_found, loss = _gradient(seen.items, seen.phi, seen.n, taken, ends, state["theta"], total)
    return Lesson(total, len(ends), len(taken), n_found, n_hits, loss)


@nb.njit(cache=True, nogil=True)
def _step(theta: np.ndarray, mean: np.ndarray, square: np.ndarray, average: np.ndarray, g: np.ndarray, t: int) -> None:
    size = STEP * max(LEAST_STEP, 1.0 / math.sqrt(1.0 + t / HALVING))
    step = np.float32(size)
    unbiased = np.float32(1.0 / (1.0 - 0.999 ** min(t, 20_000)))
    one, share = np.float32(1.0), np.float32(max(AVERAGED, 1.0 / (1.0 + t)))
    for k in range(theta.shape[0]):
        mean[k] = MOMENTUM * mean[k] + (one - MOMENTUM) * g[k]
        square[k] = MEMORY * square[k] + (one - MEMORY) * (g[k] * g[k])
        moved = theta[k] - step * mean[k] / (np.sqrt(square[k] * unbiased) + EPSILON)
        theta[k] = min(max(moved, -BOUND), BOUND)
        average[k] += share * (theta[k] - average[k])


def learn(state: np.ndarray, lesson: Lesson) -> None:
    """Apply one lesson to the state: the only function that changes it. One that no basket can give is passed over."""
    if lesson.n_found == 0 or lesson.gradient.shape != state["theta"].shape or not (np.abs(lesson.gradient) < MOST).all():
        return
    state["n_steps"] += 1
    state["n_lessons"] += lesson.n
    _step(state["theta"], state["mean"], state["square"], state["average"], lesson.gradient, int(state["n_steps"]))
