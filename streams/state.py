"""What the parts of one worker share: both sides' rows, the catalogue, and the partitions that are ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from infra.metrics import Metrics
from infra.settings import Settings
from models.mf import MatrixFactors
from streams.catalogue import Catalogue
from streams.fence import FenceLost
from streams.items import ItemTable
from streams.lessons import Learner
from streams.outbox import Message
from streams.refresh import Refresher
from streams.users import UserSide


def wall_clock_ms() -> int:
    """Now, epoch ms."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class Tenure:
    """One partition from its takeover to its loss; compared by identity, so that what an old one left is stale.

    `shown` gates publishing: nothing is published before absorb has passed it, so no list goes back in time.
    """

    partition: int
    token: str  # of the fence
    shown: int
    checkpoint: int  # low-water mark as last written
    origins: np.ndarray  # (n,) int64, as of `checkpoint`
    outgoing: list[Message] = field(default_factory=list)  # dead letters and moved events, in order
    broken: bool = False  # a cycle took from it and did not end: nothing after it may be written
    items_offset: int = 0  # up to here Redis held the item rows when we took over: older replicas must not write


def _unexpected(lost: FenceLost) -> None:
    raise lost


class State:
    """One worker's state. Everything here is touched from the event loop's thread only."""

    def __init__(
        self, settings: Settings, metrics: Metrics | None = None, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.clock_ms = clock_ms
        self.users = UserSide(settings)
        self.items = ItemTable(settings)
        self.catalogue = Catalogue(self.items)
        factors = MatrixFactors()
        self.refresher = Refresher(settings, self.users.table, self.items, factors, self.users.context_rules)
        self.learner = Learner(settings.partitions, factors, self.refresher.fusion.state)
        self.tenures: dict[int, Tenure] = {}
        self.shown: dict[int, int] = {}  # of ended tenures: Redis may forget what readers have seen, we don't
        #: set by the worker: who is told that fences are gone, and where the log of a partition ends
        self.lost: Callable[[FenceLost], None] = _unexpected
        self.log_end: Callable[[int], int | None] = lambda _: None
        self.release: str | None = None  # version of the one that lists are made with
        self.release_refused: tuple[str, str] | None = None  # version of the last one that was refused since, and why
        self.n_saving = 0  # rows on their way to Redis
        self._waiting = {"kafka": 0, "redis": 0}  # how many operations wait for it
        self._gone = {"kafka": False, "redis": False}

    def lag_by_partition(self) -> dict[int, int]:
        """Events of each of our partitions that are not absorbed yet; 0 where the log's end is not known."""
        position = self.users.position
        ends = {p: self.log_end(p) for p in self.tenures}
        return {p: max(0, end - int(position[p])) if end is not None else 0 for p, end in ends.items()}

    def lag(self) -> int:
        """The sum of it."""
        return sum(self.lag_by_partition().values())

    def current(self, tenure: Tenure) -> bool:
        """Whether what was begun under this tenure still counts."""
        return self.tenures.get(tenure.partition) is tenure

    def may_publish(self, tenure: Tenure) -> bool:
        """Whether absorb has come as far as any list of the owners before."""
        return bool(self.users.position[tenure.partition] > tenure.shown)

    def begin(self, tenure: Tenure, offset: int) -> None:
        """A partition is ours, from `offset` on."""
        self.users.start(tenure.partition, offset, tenure.origins.tolist())
        self.tenures[tenure.partition] = tenure

    def end(self, partition: int) -> None:
        """A partition is not ours any more: forget its users."""
        if (tenure := self.tenures.pop(partition, None)) is not None:
            self.shown[partition] = max(tenure.shown, self.shown.get(partition, -1))
            self.users.start(partition, int(self.users.position[partition]))
            self.metrics.forget_partition(partition)

    @contextmanager
    def waiting(self, server: str) -> Iterator[None]:
        """While entered, metrics and health say that we wait for this server."""
        self._waiting[server] += 1
        self.metrics.waiting.labels(server).set(1)
        try:
            yield
        finally:
            self._waiting[server] -= 1
            self.metrics.waiting.labels(server).set(int(server in self.waits_for))

    def gone(self, server: str, gone: bool) -> None:
        """What a look at the server has shown, also at rest."""
        self._gone[server] = gone
        self.metrics.waiting.labels(server).set(int(server in self.waits_for))

    @property
    def waits_for(self) -> list[str]:
        """Servers that we wait for."""
        return [server for server, n in self._waiting.items() if n or self._gone[server]]
