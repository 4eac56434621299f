"""Whose turn it is, of several processes on several machines: the one to whom Kafka gives the only partition of a topic in their group.

In: settings, and a name for the work. Out: a `Lease`. A holder that dies is noticed after `session_ms`, and the next one takes over. It is
no fence: a holder that was stopped and wakes up later hears of its loss only then.
"""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from infra.settings import Settings

log = logging.getLogger(__name__)

#: Making a window of a large log holds the interpreter for seconds.
SESSION_MS = 30_000
NEVER_MS = 2_000_000_000


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the group gives and takes."""

    def __init__(self, work: str, group: str) -> None:
        self.held = asyncio.Event()
        self.decided = asyncio.Event()
        self._work, self._group = work, group

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """The group is about to decide anew."""
        self.held.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """It has decided."""
        if assigned:
            self.held.set()
        else:
            log.warning("another %s of this system is at work (group %s); this one waits until it ends", self._work, self._group)
        self.decided.set()


class Lease:
    """Take part while this is open; `held` says whether it is our turn. work: names the group; topic: one of ours with one partition."""

    def __init__(self, settings: Settings, work: str = "trainer", topic: str = "models", *, session_ms: int = SESSION_MS) -> None:
        self._settings, self._work, self._topic, self._session_ms = settings, work, topic, session_ms
        self._listener = _Listener(work, settings.prefix + work)

    @property
    def held(self) -> bool:
        """Whether it is our turn."""
        return self._listener.held.is_set()

    async def wait(self) -> None:
        """Until it is our turn."""
        await self._listener.held.wait()

    async def decided(self) -> bool:
        """Whether it is our turn, once the group has decided for the first time: where a holder has died, when that was noticed."""
        await self._listener.decided.wait()
        return self.held

    async def __aenter__(self) -> Lease:
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            group_id=settings.prefix + self._work, **settings.kafka_client_args(), client_id=f"streamrec-{self._work}", enable_auto_commit=False,
            # others give it to whoever comes, in the middle of the work
            partition_assignment_strategy=[StickyPartitionAssignor],
            session_timeout_ms=self._session_ms, heartbeat_interval_ms=min(1_000, self._session_ms // 3), max_poll_interval_ms=NEVER_MS)
        self._consumer.subscribe([settings.topic(self._topic)], listener=self._listener)
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
