"""Online matrix factorisation: item vectors that move with every event, user vectors that are functions of the history.

Asymmetric (Paterek 2007; FISM, Kabbur et al. 2013): item i has a vector x_i as part of a history and a vector y_i as what
comes next. A user is c = sum of w_k x_k / sum of w_k over his items; logit(i) = c . y_i. So a user needs no state of his
own, and his first event already gives him a vector. Learned test-then-learn by sampled softmax with the logQ correction
(Bengio and Senecal 2008): half the negatives uniform, half what others took lately, so that c . y_i tends to log P(i | c).
What was had before is no matter of factors: how often a next item is one of those before it is counted, by their number
(RepeatNet, Ren et al. 2019, with counts in the place of its network). The newest items of the session learn the way back as well
(x of what follows predicts them): on sessions, worth a sixth more hits. AdaGrad steps, one accumulator a row (`models.mf_steps`).
"""

from __future__ import annotations

import numpy as np

from models.hashing import find_all, rebuild
from models.lessons import Lessons
from models.mf_steps import N_FACTORS, N_RECENT, Vectors, empty, teach


class MatrixFactors:
    """The model. `n_items` slots are in use; slots are given in the order of the log and never reused.

    >>> from models.lessons import LESSON
    >>> model = MatrixFactors()
    >>> heads = np.zeros(1, LESSON)
    >>> heads["item"], heads["weight"], heads["n_context"] = 7, 1.0, 1
    >>> for _ in range(50):
    ...     model.teach(Lessons(heads, np.array([5], np.uint64), np.array([255], np.uint8)))
    >>> users = model.x[model.slots(np.array([5], np.uint64))]
    >>> bool((users @ model.y[: model.n_items].T).argmax() == model.slots(np.array([7], np.uint64))[0])
    True
    """

    def __init__(self) -> None:
        self.n_items = 0
        self.n_taught = 0
        self._v = empty(1024)

    @property
    def x(self) -> np.ndarray:
        """(n_items, N_FACTORS) float32: items as part of a history."""
        return self._v.x[: self.n_items]

    @property
    def y(self) -> np.ndarray:
        """(n_items, N_FACTORS) float32: items as what comes next."""
        return self._v.y[: self.n_items]

    @property
    def repeat_rates(self) -> np.ndarray:
        """(N_CONTEXT + 1,) float32: how likely the next item is one of those before it, by their number."""
        rates: np.ndarray = self._v.repeats[:, 0] / self._v.repeats[:, 1]
        return rates

    @property
    def hashes(self) -> np.ndarray:
        """(n_items,) uint64: items by slot."""
        return self._v.hashes[: self.n_items]

    @property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Table from hashes to slots, as `models.hashing.find_slot` takes it."""
        return self._v.keys, self._v.cells

    def slots(self, hashes: np.ndarray) -> np.ndarray:
        """Slots of items (n,) uint64 -> (n,) int32, -1 where unknown."""
        found: np.ndarray = np.empty((1, len(hashes)), np.int32)
        find_all(self._v.keys, self._v.cells, hashes.reshape(1, -1), found)
        return found.reshape(-1)

    def reserve(self, n_more: int) -> None:
        """Make room for so many new items."""
        needed = self.n_items + n_more
        if needed <= len(self._v.hashes):
            return
        old, n = self._v, self.n_items
        new = empty(1 << (needed - 1).bit_length())
        new = new._replace(recent=old.recent, negatives=old.negatives, log_q=old.log_q, repeats=old.repeats)
        for name in ("x", "y", "squares", "drawn", "hashes"):
            getattr(new, name)[:n] = getattr(old, name)[:n]
        rebuild(new.keys, new.cells, new.hashes, n)
        self._v = new  # last: lists may be computed meanwhile

    def teach(self, lessons: Lessons) -> None:
        """Learn from lessons, in order."""
        most = len(lessons.heads) + len(lessons.items)
        if self.n_items + most > len(self._v.hashes):  # one message can name half a million: mostly the same few
            named = np.concatenate([lessons.heads["item"], lessons.items])
            most = len(np.unique(named[self.slots(named) < 0]))
        self.reserve(most)
        self.n_items, self.n_taught = teach(self._v, lessons, self.n_items, self.n_taught)

    def dump(self) -> bytes:
        """The whole state, bit by bit."""
        data = bytearray(size_of_dump(self.n_items))
        self.dump_into(np.frombuffer(data, np.uint8))
        return bytes(data)

    def dump_into(self, out: np.ndarray) -> None:
        """The same into (size_of_dump(n_items),) uint8. Copied by numpy, which lets other threads go on meanwhile."""
        at = 0
        for array in (np.array([self.n_items, self.n_taught], "<i8"), *_kept(self._v, self.n_items)):
            out[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            at += array.nbytes

    def load(self, data: bytes | bytearray) -> None:
        """Take the state that `dump` returned; raises ValueError where the bytes are none."""
        if len(data) < N_HEAD:
            raise ValueError(f"{len(data)} bytes are no factors")
        n, n_taught = (int(number) for number in np.frombuffer(data, "<i8", 2))
        if n < 0 or n_taught < 0 or len(data) != size_of_dump(n):
            raise ValueError(f"{len(data)} bytes are no factors of {n} items")
        self.n_items = self.n_taught = 0
        self._v = empty(max(1024, 1 << (n - 1).bit_length() if n else 1024))
        at = N_HEAD
        for array in _kept(self._v, n):
            array[:] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes
        rebuild(self._v.keys, self._v.cells, self._v.hashes, n)
        self._v.drawn[:n] = np.bincount(self._v.recent[: min(n_taught, N_RECENT)], minlength=n)[:n]
        self.n_items, self.n_taught = n, n_taught


def _kept(v: Vectors, n_items: int) -> tuple[np.ndarray, ...]:
    """What a dump holds behind its head, in this order: all that cannot be made from the rest."""
    return v.hashes[:n_items], v.x[:n_items], v.y[:n_items], v.squares[:n_items], v.recent, v.negatives, v.log_q, v.repeats


def size_of_dump(n_items: int) -> int:
    """Bytes of the state of a model of so many items."""
    of_none, of_one = (sum(array.nbytes for array in _kept(_ONE, n)) for n in (0, 1))
    return N_HEAD + of_none + n_items * (of_one - of_none)


#: The numbers of items and of lessons taught, with which a dump begins.
N_HEAD = 16
_ONE = empty(1)
