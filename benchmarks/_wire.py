"""Two sockets as thin as they get: produce to Kafka, and read the ends of lists in Redis, without a client's own cost.

The load generator shares two cores with what it measures, so it must be cheap: one produce request a tick for all partitions
(about 0.2 ms), and all open questions to Redis in one pipelined write.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import hiredis
from aiokafka.protocol.produce import ProduceRequest_v5, ProduceResponse_v5
from aiokafka.record.default_records import DefaultRecordBatchBuilder

ACKS_ALL, TIMEOUT_MS = -1, 30_000
BATCH_BYTES = 1 << 20
#: A list ends in its `as_of` (docs/contract.md), so its last bytes tell what it reflects, without 4 kB a look.
TAIL_BYTES = 80
OFFSET = re.compile(rb'"as_of":\{"partition":\d+,"offset":(\d+)')


class KafkaSocket:
    """Produces plain batches to the one broker of a local stack."""

    def __init__(self, address: str, topic: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._topic, self._next = topic, 0
        self._buffer = bytearray()

    def send(self, batches: dict[int, list[tuple[bytes, bytes]]], now_ms: int) -> int:
        """One request with the (key, value) of each partition; returns its number."""
        parts = []
        for partition, events in batches.items():
            builder = DefaultRecordBatchBuilder(2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
                                                batch_size=BATCH_BYTES)
            for offset, (key, value) in enumerate(events):
                builder.append(offset, timestamp=now_ms, key=key, value=value, headers=[])
            parts.append((partition, bytes(builder.build())))
        self._next += 1
        request = ProduceRequest_v5(None, ACKS_ALL, TIMEOUT_MS, [(self._topic, parts)])
        frame = request.build_request_header(self._next, "streamrec-bench").encode() + request.encode()
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        return self._next

    def receive(self) -> list[tuple[int, dict[int, int]]]:
        """Acknowledged requests: number, and the first offset of each partition's batch. Call it when bytes are there."""
        self._buffer += self.socket.recv(1 << 16)
        acknowledged = []
        while len(self._buffer) >= 4 and len(self._buffer) >= 4 + (size := struct.unpack_from(">i", self._buffer)[0]):
            frame = bytes(self._buffer[4:4 + size])
            del self._buffer[:4 + size]
            answer = ProduceResponse_v5.decode(frame[4:])
            offsets = {}
            for _, partitions in answer.topics:
                for partition, error, offset, *_ in partitions:
                    if error:
                        raise RuntimeError(f"Kafka refused a batch of partition {partition} with error {error}")
                    offsets[partition] = offset
            acknowledged.append((struct.unpack_from(">i", frame)[0], offsets))
        return acknowledged


@dataclass(slots=True)
class Probe:
    """One event whose list is waited for: since when (monotonic s), and where it lies."""

    key: bytes
    offset: int
    since_s: float
    next_s: float = 0.0


class RedisSocket:
    """Asks for the ends of lists, any number in one write; answers come in order."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self.asked: list[Probe] = []

    def ask(self, probes: list[Probe]) -> None:
        """One GETRANGE for each."""
        self.asked = probes
        self.socket.sendall(b"".join(tail_of(probe.key) for probe in probes))

    def receive(self) -> list[tuple[Probe, int]]:
        """Probes answered by now, each with the offset that its list reflects (-1: no list)."""
        self._reader.feed(self.socket.recv(1 << 16))
        answered: list[tuple[Probe, int]] = []
        while (tail := self._reader.gets()) is not False:
            answered.append((self.asked[len(answered)], offset_in(tail)))
        del self.asked[:len(answered)]
        return answered


def tail_of(key: bytes) -> bytes:
    """The command, packed."""
    return b"*4\r\n$8\r\nGETRANGE\r\n$%d\r\n%b\r\n$3\r\n-%d\r\n$2\r\n-1\r\n" % (len(key), key, TAIL_BYTES)


def offset_in(tail: Any) -> int:
    """The offset of the last event that a list reflects, from its last bytes; -1 where there is none."""
    found = OFFSET.search(tail) if isinstance(tail, bytes) else None
    return int(found[1]) if found else -1
