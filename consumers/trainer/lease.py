"""Who trains, of several trainers on several machines: the one to whom Kafka gives the only partition of `models` in their group.

The lock on the event log's folder keeps two trainers of one folder apart; this keeps apart those with folders of their own. A trainer that
dies is noticed after `SESSION_MS`, and the next one takes over.
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

    def __init__(self, group: str) -> None:
        self.held = asyncio.Event()
        self.decided = asyncio.Event()
        self._group = group

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """The group is about to decide anew."""
        self.held.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """It has decided."""
        if assigned:
            self.held.set()
        else:
            log.warning("another trainer of this system is at work (group %s); this one waits until it ends", self._group)
        self.decided.set()


class Lease:
    """Take part while this is open; `held` says whether it is our turn."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._group = settings.prefix + "trainer"
        self._listener = _Listener(self._group)

    @property
    def held(self) -> bool:
        """Whether nobody else trains."""
        return self._listener.held.is_set()

    async def wait(self) -> None:
        """Until it is our turn."""
        await self._listener.held.wait()

    async def __aenter__(self) -> Lease:
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            group_id=self._group, **settings.kafka_client_args(), client_id="streamrec-trainer", enable_auto_commit=False,
            # others give it to whoever comes, in the middle of a training
            partition_assignment_strategy=[StickyPartitionAssignor],
            session_timeout_ms=SESSION_MS, heartbeat_interval_ms=min(1_000, SESSION_MS // 3), max_poll_interval_ms=NEVER_MS)
        self._consumer.subscribe([settings.topic("models")], listener=self._listener)
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
