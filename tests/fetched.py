"""What a fetch brings, for tests that need no Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class FetchedRecord:
    """A record as aiokafka has it, with the kind of its time: 1 the broker's, 0 the producer's."""

    offset: int
    timestamp: int
    value: bytes | None
    headers: Any = ()
    key: bytes | None = None
    timestamp_type: int = 1
