"""Which topic a name stands for: the id that a broker gives each topic when it is made, so that one made anew is known.

aiokafka speaks metadata up to version 5, ids come with version 10 (Kafka 2.8): hence a request of our own, in its types.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

#: A broker that knows no ids, or does not tell them, says this.
NO_ID = bytes(16)
UNKNOWN_TOPIC = 3


class _Id(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _Metadata(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), ("tags", TaggedFields)
            ),
        ),
        ("cluster", CompactString()),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error", Int16),
                ("name", CompactString()),
                ("id", _Id),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("in_sync", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("operations", Int32),
        ("tags", TaggedFields),
    )


class _AskMetadata(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _Metadata
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _Id), ("name", CompactString()), ("tags", TaggedFields))),
        ("create", Boolean),
        ("cluster_operations", Boolean),
        ("operations", Boolean),
        ("tags", TaggedFields),
    )


class _Ask(Request[_AskMetadata]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_AskMetadata]) -> _AskMetadata:
        return request_struct_class([(NO_ID, name, {}) for name in self._names], False, False, False, {})


async def topic_id(client: Any, name: str) -> str | None:
    """The id of a topic, as hexadecimal digits; "" where the broker does not tell it, None where there is no such topic.

    client: a started `AIOKafkaClient`. Raises aiokafka's errors where the broker does not answer.
    """
    try:
        answer = await client.send(client.get_random_node(), _Ask([name]))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return ""
    ((error, _, found, *_),) = answer.topics
    if error == UNKNOWN_TOPIC:
        return None
    return "" if found == NO_ID else str(found.hex())
