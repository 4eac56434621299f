"""The seven topics: creates what is missing, and refuses what has another shape.

In: `Settings`. Out: topics on the broker, or a `TopicError` that says what differs. Neither Faust nor the broker creates
topics: an automatic one has the wrong partition count and loses imported history.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from infra.settings import Settings, StreamrecError

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # a 5 MB event must reach us to be refused with a reason; packed interactions grow too
REQUEST_TIMEOUT_MS = 30_000  # creating 8 partitions takes under a second; a broker that just started may take some more
START_WAIT_S = 60.0  # a wrong address should be said within a minute
VISIBLE_DEADLINE_S = 30.0  # a created topic appears in the metadata of every broker within a moment


class TopicError(StreamrecError):
    """A topic is missing, cannot be created, or has another partition count than the settings."""


@dataclass(frozen=True)
class TopicPlan:
    """What one topic must look like: full name, partition count, broker settings."""

    name: str
    partitions: int
    config: dict[str, str]


def plan(settings: Settings) -> list[TopicPlan]:
    """All topics as the settings want them."""
    # LogAppendTime: with the producer's time Kafka would delete imported history at once, for being old.
    shared = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compacted = shared | {"cleanup.policy": "compact"}

    def kept(retention_s: int) -> dict[str, str]:
        retention_ms = -1 if retention_s < 0 else retention_s * 1000
        return shared | {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1"}

    return [
        TopicPlan(settings.topic("events"), settings.partitions, kept(settings.events_retention_s)),
        TopicPlan(settings.topic("interactions"), settings.partitions, kept(settings.interactions_retention_s)),
        TopicPlan(settings.topic("lessons"), 1, kept(settings.interactions_retention_s)),
        *(TopicPlan(settings.topic(name), 1, compacted) for name in ("items", "models", "erasures", "events.dlq")),
    ]


async def ensure_topics(settings: Settings) -> list[str]:
    """Creates the missing topics and checks the others; returns the names it created. Safe to call at any time, by many.

    Raises TopicError when one exists with another partition count: users would then sit in other partitions than their
    rows, so the count belongs to a generation. Other settings of an existing topic stay as their operator set them.
    """
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import TopicAlreadyExistsError, for_code

    admin = AIOKafkaAdminClient(request_timeout_ms=REQUEST_TIMEOUT_MS, **settings.kafka_client_args())
    try:
        await admin.start()
        wanted = plan(settings)
        present = await partition_counts(admin, [topic.name for topic in wanted])
        missing = [topic for topic in wanted if topic.name not in present]
        created = []
        if missing:
            response = await admin.create_topics([
                NewTopic(topic.name, topic.partitions, settings.replication, topic_configs=topic.config) for topic in missing])
            for name, code, *message in response.topic_errors:
                error = for_code(code)
                if code == 0:
                    created.append(name)
                elif error is not TopicAlreadyExistsError:  # another worker was faster: fine
                    raise TopicError(f"topic {name} cannot be created: {error.__name__}"
                                     f"{' (' + str(message[0]) + ')' if message and message[0] else ''}; "
                                     "check the replication setting and this user's rights, or create it by hand")
            present = await _until_visible(admin, wanted)
        for topic in wanted:
            if present[topic.name] != topic.partitions:
                raise TopicError(f"topic {topic.name} has {present[topic.name]} partitions, the settings expect "
                                 f"{topic.partitions}; set STREAMREC_PARTITIONS to what is there, or use another "
                                 "STREAMREC_PREFIX for a system with another partition count")
        return created
    finally:
        await admin.close()


async def ensure_topics_patiently(settings: Settings) -> list[str]:
    """The same by a worker that starts together with its Kafka: waits for it, `START_WAIT_S` at most."""
    return await _patiently(settings, ensure_topics)


async def wait_for_kafka(settings: Settings) -> None:
    """Until Kafka answers, `START_WAIT_S` at most."""
    from aiokafka.admin import AIOKafkaAdminClient

    async def ask(settings: Settings) -> None:
        admin = AIOKafkaAdminClient(request_timeout_ms=REQUEST_TIMEOUT_MS, **settings.kafka_client_args())
        try:
            await admin.start()
        finally:
            await admin.close()

    await _patiently(settings, ask)


async def _patiently(settings: Settings, do: Callable[[Settings], Awaitable[T]]) -> T:
    from aiokafka.errors import KafkaConnectionError

    loop = asyncio.get_running_loop()
    deadline, said = loop.time() + START_WAIT_S, False
    client_log = logging.getLogger("aiokafka")
    level = client_log.level
    client_log.setLevel(logging.CRITICAL)  # it would say every second what we say once
    try:
        while True:
            try:
                return await do(settings)
            except KafkaConnectionError:
                if loop.time() > deadline:
                    raise
            if not said:
                log.warning("waiting for Kafka at %s, which does not answer, for %.0f s at most; is it running? `streamrec up`"
                            " starts a local one", settings.kafka_bootstrap, START_WAIT_S)
                said = True
            await asyncio.sleep(1.0)
    finally:
        client_log.setLevel(level)


async def partition_counts(admin: Any, names: list[str]) -> dict[str, int]:
    """Partition count of each of these topics that exists."""
    # Asked for all topics, not by name: naming a missing topic makes a broker with auto-creation create it.
    metadata = await admin.describe_topics()
    return {entry["topic"]: len(entry["partitions"]) for entry in metadata
            if entry["topic"] in names and not entry["error_code"]}


async def _until_visible(admin: Any, wanted: list[TopicPlan]) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + VISIBLE_DEADLINE_S
    while True:
        present = await partition_counts(admin, [topic.name for topic in wanted])
        missing = [topic.name for topic in wanted if not present.get(topic.name)]
        if not missing:
            return present
        if loop.time() > deadline:
            raise TopicError(f"topics {', '.join(missing)} were created but are not visible after "
                             f"{VISIBLE_DEADLINE_S:.0f} s; look at the broker's log, then try again")
        await asyncio.sleep(0.05)
