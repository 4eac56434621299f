"""The lockstep engine: absorb, fold and refresh called directly, without a broker, Redis or a running loop.

It is the reference that a live system is compared with, and the ground on which quality is judged: the same functions
over the same state, in lockstep - what is absorbed is folded before the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infra.settings import Settings
from streams.catalogue import decode_item
from streams.decode import Decoded, Record
from streams.lessons import pack as pack_lessons
from streams.outbox import interactions_messages
from streams.partitioner import partition_of
from streams.prequential import Prequential
from streams.state import State, wall_clock_ms


@dataclass(slots=True)
class LogRecord:
    """One record of an events log in memory; `timestamp` is the append time in epoch ms."""

    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes | None = None


class Engine:
    """All partitions in one process. Misplaced events are not moved: a real log holds the copy that a worker made."""

    def __init__(self, settings: Settings, *, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self.settings = settings
        self.state = State(settings, clock_ms=clock_ms)
        self._offsets = np.zeros(settings.partitions, np.int64)  # of interactions
        self._prequential = Prequential(settings, self.state.users, self.state.refresher)

    def partition_of(self, user: str) -> int:
        """Partition of a user's events."""
        return partition_of(user, self.settings.partitions)

    def absorb(self, partition: int, records: Sequence[Record]) -> Decoded:
        """Absorb a batch of one partition and fold what it says about items."""
        users = self.state.users
        decoded = users.decode(partition, records)
        users.admit(partition, decoded, [None] * len(decoded.missing))
        users.erase(partition, decoded.erased)
        users.judge(partition, decoded, self._prequential.lessons(partition, decoded))
        users.absorb(partition, decoded, records[-1].offset + 1)
        said = [users.take_records(partition)]
        for message in interactions_messages("", said, users.decoder.names, self.settings.partitions):
            assert message.partition is not None
            self.state.items.fold(message.partition, int(self._offsets[message.partition]), message.value)
            self._offsets[message.partition] += 1
        for value in pack_lessons([users.take_lessons(partition)]):
            learner = self.state.learner
            learner.learn(learner.take(learner.position, value))
        return decoded

    def describe_item(self, key: bytes | None, value: bytes | None, appended_ms: int) -> None:
        """Take in one message of the `items` topic."""
        item_id, attributes = decode_item(key, value)
        self.state.catalogue.apply(item_id, attributes, appended_ms, self.state.clock_ms())

    def lists(self, users: Iterable[str]) -> dict[str, bytes]:
        """Fresh lists, as they would be published; users without an event are left out."""
        table = self.state.users.table
        known = [(user, table.slots[self.partition_of(user)].get(user)) for user in users]
        slots = [slot for _, slot in known if slot is not None]
        if not slots:
            return {}
        self.state.catalogue.expire(self.state.clock_ms())
        self.state.refresher.renew_popularity()
        bodies, _ = self.state.refresher.lists(slots, self.state.clock_ms())
        return dict(zip((user for user, slot in known if slot is not None), bodies, strict=True))
