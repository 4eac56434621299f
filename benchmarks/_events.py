"""Synthetic behaviour: who does what when. Everything is drawn from a seed, nothing here talks to a server.

20,000 items of which few are taken often (weight 1 / (rank + 10)), 50,000 users of unequal zeal (log-normal, sigma 1), mostly
views. Ids are decimal digits, 8 of them, so that the claims about memory hold for the keys at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streams.partitioner import partitions_of

TYPES = (b"view", b"click", b"add_to_cart", b"like", b"purchase")
TYPE_SHARES = (0.70, 0.15, 0.08, 0.02, 0.05)
HEAD = 10  # ranks over which the popularity of items is flat
DAY_MS = 86_400_000
TEMPLATE = b'{"event_id":"%016x%016x","user_id":"%b","item_id":"%b","event_type":"%b","timestamp":%d}'


@dataclass(frozen=True, slots=True)
class Draw:
    """n events in their order in the log: indices of users and items, types, event ids; all (n,)."""

    users: np.ndarray
    items: np.ndarray
    types: np.ndarray
    ids: np.ndarray  # (n, 2) uint64

    def __len__(self) -> int:
        return len(self.users)


class Population:
    """Users, items and how likely each is. `digits`: length of user ids."""

    def __init__(self, seed: int, partitions: int, *, users: int = 50_000, items: int = 20_000, digits: int = 8) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed, self.n_partitions = seed, partitions
        self.users = [b"%0*d" % (digits, number) for number in range(users)]
        self.items = [b"%08d" % number for number in rng.choice(10**8, items, replace=False)]
        self.home = partitions_of([user.decode() for user in self.users], partitions)  # (users,)
        self._user_share = np.cumsum(rng.lognormal(0.0, 1.0, users))
        self._item_share = np.cumsum(1.0 / (np.arange(items) + HEAD))
        self._type_share = np.cumsum(TYPE_SHARES)

    def draw(self, n: int, run: int, *, all_once: bool = False) -> Draw:
        """n events of run number `run`; `all_once`: as far as n goes, every user and every item comes early."""
        rng = np.random.default_rng([self.seed, 1, run])
        users = _weighted(rng, self._user_share, n)
        items = _weighted(rng, self._item_share, n)
        if all_once:
            everyone, everything = rng.permutation(len(self.users))[:n], rng.permutation(len(self.items))[:n]
            users[:len(everyone)], items[:len(everything)] = everyone, everything
        return Draw(users, items, _weighted(rng, self._type_share, n), rng.integers(0, 2**64, (n, 2), np.uint64))

    def each_user_once(self, run: int) -> Draw:
        """One event of every user, in random order."""
        draw = self.draw(len(self.users), run)
        return Draw(np.random.default_rng([self.seed, 2, run]).permutation(len(self.users)), draw.items, draw.types, draw.ids)

    def writer(self, draw: Draw) -> Callable[[int, int], bytes]:
        """write(k, time_ms): the message of event k, one plain JSON object."""
        users, items = self.users, self.items
        ids, who, what, types = draw.ids.tolist(), draw.users.tolist(), draw.items.tolist(), draw.types.tolist()

        def write(k: int, time_ms: int) -> bytes:
            return TEMPLATE % (*ids[k], users[who[k]], items[what[k]], TYPES[types[k]], time_ms)

        return write


def _weighted(rng: np.random.Generator, cumulative: np.ndarray, n: int) -> np.ndarray:
    """n indices, each as likely as its step of `cumulative`."""
    found: np.ndarray = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right").astype(np.int64)
    return found
