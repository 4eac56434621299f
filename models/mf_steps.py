"""The steps of online matrix factorisation: what one lesson does to the vectors. Kernels; `models.mf` holds the state.

What a lesson changes is a function of state and lesson alone, random numbers included: bit-equal for the same log.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.hashing import find_slot, put_slot
from models.lessons import N_CONTEXT, Lessons

N_FACTORS = 64
N_NEGATIVES = 64
#: Lessons in a row that share their negatives: what a step costs is fetching their vectors from memory.
SHARED = 16
#: Targets that popular negatives are drawn from: the last so many.
N_RECENT = 65_536
STEP = 0.3
BACK_STEP = 0.15
X_SCALE = 0.3
#: A new item's y, in parts of its x: who has an item is a little likelier to take it again than an unknown one.
Y_START = 1.0
#: No event counts more than this, whatever the settings say of its type.
MAX_WEIGHT = 10.0
#: Longest vector; on real streams the longest are half of it.
MAX_NORM = 20.0
#: A gradient smaller than this is not worth touching a row for.
LEAST_GRADIENT = 1e-3
#: What is left of a sum of squares at the next step: else what was learned of an item a million events ago would hold for
#: ever, and one event with a weight of a million would end all learning of it.
MEMORY = 0.9998
#: What the counts of taken-again items begin as: one in five, which one event outweighs.
REPEATS_START = (0.2, 1.0)
#: Sums may be reordered, so that eight run side by side: 5 times as fast, and still bit-equal wherever the compiler sees the same kind
#: of CPU. Workers on different kinds may differ in last digits of vectors, as they do in no other state. What reorders is inlined, all
#: of it: else a process that compiles would run another copy of it, optimised otherwise, than one that loads from the cache, and
#: their vectors would part.
FAST = {"reassoc", "contract", "nsz"}


class Vectors(NamedTuple):
    """Arrays of the model by slot, in order of first appearance in the log of lessons. Capacity C >= n items.

    x, y (C, N_FACTORS) float32; squares (C, 2) float32: sums of squared gradients of x and y; drawn (C,) int32: how often
    an item stands in `recent` (N_RECENT,) int32, a ring of slots; hashes (C,) uint64; keys, cells: index by hash; negatives
    (N_NEGATIVES,) int32 and log_q (N_NEGATIVES + 1,) float32: those of the present `SHARED` lessons; repeats (N_CONTEXT + 1, 2) float32,
    by number of items before: how much of what came next the user had before, and how much came, both fading.
    """

    x: np.ndarray
    y: np.ndarray
    squares: np.ndarray
    drawn: np.ndarray
    hashes: np.ndarray
    recent: np.ndarray
    keys: np.ndarray
    cells: np.ndarray
    negatives: np.ndarray
    log_q: np.ndarray
    repeats: np.ndarray


@nb.njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    """splitmix64: one well-mixed number for each argument (Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@nb.njit(cache=True, nogil=True)
def _slot(v: Vectors, item: np.uint64, n: int) -> int:
    """Slot of an item; a new one (slot n) starts with a small x that only its hash decides."""
    slot = find_slot(v.keys, v.cells, item)
    if slot >= 0:
        return int(slot)
    put_slot(v.keys, v.cells, item, n)
    v.hashes[n] = item
    for f in range(N_FACTORS):
        uniform = np.float32(_mix(item + np.uint64(f)) >> np.uint64(40)) * np.float32(2.0 / 16777216.0) - np.float32(1.0)
        v.x[n, f] = uniform * np.float32(X_SCALE * 1.7320508)
        v.y[n, f] = np.float32(Y_START) * v.x[n, f]
    return n


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _dot(a: np.ndarray, i: int, b: np.ndarray, j: int) -> np.float32:
    total = np.float32(0)
    for f in range(N_FACTORS):
        total += a[i, f] * b[j, f]
    return total


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _move(vectors: np.ndarray, slot: int, direction: np.ndarray, amount: np.float32) -> None:
    size = np.float32(0)
    for f in range(N_FACTORS):
        moved = vectors[slot, f] + amount * direction[0, f]
        vectors[slot, f] = moved
        size += moved * moved
    if size > np.float32(MAX_NORM * MAX_NORM):
        shrink = np.float32(MAX_NORM) / np.sqrt(size)
        for f in range(N_FACTORS):
            vectors[slot, f] *= shrink


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _step(
    v: Vectors,
    c: np.ndarray,
    pull: np.ndarray,
    target: int,
    weight: np.float32,
    negatives: np.ndarray,
    log_q: np.ndarray,
    logits: np.ndarray,
    step: np.float32,
) -> None:
    """One step of the y of target and negatives from the context c (1, N_FACTORS); fills `pull`, the gradient of c."""
    n = len(negatives)
    y = v.y
    logits[n] = _dot(c, 0, y, target) - log_q[n]
    most = logits[n]
    for a in range(n):
        logits[a] = _dot(c, 0, y, negatives[a]) - log_q[a] if negatives[a] != target else np.float32(-1e30)
        most = max(most, logits[a])
    total = np.float32(0)
    for a in range(n + 1):
        logits[a] = np.exp(logits[a] - most)
        total += logits[a]
    pull[:] = 0
    size = _dot(c, 0, c, 0) / np.float32(N_FACTORS)
    for a in range(n + 1):
        slot = target if a == n else negatives[a]
        gradient = -logits[a] / total
        if weight < 0:  # disliked: only away from it, as far as it is expected rather than one of the negatives
            if a < n:
                continue
            gradient = -logits[a] / (logits[a] + (total - logits[a]) / np.float32(n))
        elif a == n:
            gradient += np.float32(1)
        gradient *= min(abs(weight), np.float32(MAX_WEIGHT))
        if abs(gradient) < np.float32(LEAST_GRADIENT):
            continue
        for f in range(N_FACTORS):
            pull[0, f] += gradient * y[slot, f]
        v.squares[slot, 1] = v.squares[slot, 1] * np.float32(MEMORY) + gradient * gradient * size
        _move(y, slot, c, step * gradient / np.sqrt(v.squares[slot, 1] + np.float32(1e-6)))


@nb.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _move_x(v: Vectors, slot: int, pull: np.ndarray, size: np.float32, share: np.float32, step: np.float32) -> None:
    v.squares[slot, 0] = v.squares[slot, 0] * np.float32(MEMORY) + size * share * share
    _move(v.x, slot, pull, step * share / np.sqrt(v.squares[slot, 0] + np.float32(1e-6)))


@nb.njit(cache=True, nogil=True)
def _log_q(v: Vectors, slot: int, n: int, n_recent: int) -> np.float32:
    popular = v.drawn[slot] / n_recent if n_recent else 1.0 / n
    return np.float32(np.log(0.5 / n + 0.5 * popular))


@nb.njit(cache=True, nogil=True)
def _draw(v: Vectors, n: int, n_recent: int, seed: np.uint64) -> None:
    random = _mix(seed)
    for a in range(N_NEGATIVES):
        random = _mix(random)
        high = random >> np.uint64(32)
        if a % 2 == 0 or n_recent == 0:
            v.negatives[a] = np.int32((high * np.uint64(n)) >> np.uint64(32))
        else:
            v.negatives[a] = v.recent[np.int64((high * np.uint64(n_recent)) >> np.uint64(32))]
        v.log_q[a] = _log_q(v, v.negatives[a], n, n_recent)


@nb.njit(cache=True, nogil=True)
def _count_repeat(v: Vectors, n_before: int, again: int) -> None:
    counts = v.repeats[n_before]
    counts *= np.float32(MEMORY)
    counts[0] += np.float32(again)
    counts[1] += np.float32(1)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def teach(v: Vectors, lessons: Lessons, n: int, n_taught: int) -> tuple[int, int]:
    """Learn lessons in order; returns the new numbers of items and of lessons taught."""
    context = np.empty(N_CONTEXT, np.int32)
    negatives, log_q = v.negatives, v.log_q
    logits = np.empty(N_NEGATIVES + 1, np.float32)
    c = np.empty((1, N_FACTORS), np.float32)
    pull = np.empty((1, N_FACTORS), np.float32)
    at = 0
    for e in range(lessons.heads.shape[0]):
        head = lessons.heads[e]
        n_context = int(head["n_context"])
        target = _slot(v, head["item"], n)
        n = max(n, target + 1)
        total = np.float32(0)
        c[:] = 0
        for k in range(n_context):
            slot = _slot(v, lessons.items[at + k], n)
            n = max(n, slot + 1)
            context[k] = slot
            share = np.float32(lessons.shares[at + k])
            total += share
            for f in range(N_FACTORS):
                c[0, f] += share * v.x[slot, f]
        for f in range(N_FACTORS):
            c[0, f] /= total
        n_recent = min(n_taught, N_RECENT)
        if n_taught % SHARED == 0:
            _draw(v, n, n_recent, np.uint64(n_taught))
        log_q[N_NEGATIVES] = _log_q(v, target, n, n_recent)
        weight = np.float32(head["weight"])
        _step(v, c, pull, target, weight, negatives, log_q, logits, np.float32(STEP))
        if weight > 0:  # what is disliked says nothing of what was had before
            _count_repeat(v, int(head["n_before"]), int(head["again"]))
            size = _dot(pull, 0, pull, 0) / np.float32(N_FACTORS)
            for k in range(n_context):
                _move_x(v, context[k], pull, size, np.float32(lessons.shares[at + k]) / total, np.float32(STEP))
            for k in range(np.int64(head["n_back"])):
                if context[k] == target:
                    continue
                log_q[N_NEGATIVES] = _log_q(v, context[k], n, n_recent)
                c[0] = v.x[target]
                _step(v, c, pull, context[k], weight, negatives, log_q, logits, np.float32(BACK_STEP))
                size = _dot(pull, 0, pull, 0) / np.float32(N_FACTORS)
                _move_x(v, target, pull, size, np.float32(1), np.float32(BACK_STEP))
            place = n_taught % N_RECENT
            if n_taught >= N_RECENT:
                v.drawn[v.recent[place]] -= 1
            v.recent[place] = target
            v.drawn[target] += 1
            n_taught += 1
        at += n_context
    return int(n), int(n_taught)


def empty(capacity: int) -> Vectors:
    """Arrays for so many items, of which there are none yet."""
    return Vectors(
        x=np.zeros((capacity, N_FACTORS), np.float32),
        y=np.zeros((capacity, N_FACTORS), np.float32),
        squares=np.zeros((capacity, 2), np.float32),
        drawn=np.zeros(capacity, np.int32),
        hashes=np.zeros(capacity, np.uint64),
        recent=np.zeros(N_RECENT, np.int32),
        keys=np.zeros(4 * capacity, np.uint64),
        cells=np.zeros(4 * capacity, np.int32),
        negatives=np.zeros(N_NEGATIVES, np.int32),
        log_q=np.zeros(N_NEGATIVES + 1, np.float32),
        repeats=np.tile(np.array(REPEATS_START, np.float32), (N_CONTEXT + 1, 1)),
    )
