"""Users land where Java's Kafka puts them: vectors printed by kafka-clients 4.1.0 itself (`Utils.murmur2`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import murmur2, partition_of, partitions_of

# (key, murmur2 as Java shows it, partition of 8); the first six are also those of Kafka's own UtilsTest.
VECTORS = [
    ("21", -973932308, 4),
    ("foobar", -790332482, 6),
    ("a-little-bit-long-string", -985981536, 0),
    ("a-little-bit-longer-string", -1486304829, 3),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, 5),
    ("abc", 479470107, 3),
    ("", 275646681, 1),
    ("u42", -293379993, 7),
    ("household-1364", -1366583667, 5),
    ("Ærøskøbing", 210417311, 7),
    ("用户七", -533848408, 0),
    ("\0\0", 595382058, 2),
]


@pytest.mark.parametrize(("key", "java_hash", "partition"), VECTORS)
def test_equals_java(key: str, java_hash: int, partition: int) -> None:
    assert murmur2(key.encode()) == java_hash & 0xFFFFFFFF
    assert partition_of(key, 8) == partition


@given(st.binary(max_size=400))
def test_equals_the_kafka_client_in_use(key: bytes) -> None:
    aiokafka = pytest.importorskip("aiokafka.partitioner")
    assert murmur2(key) == aiokafka.murmur2(key)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=50),
    st.integers(1, 1000),
)
def test_many_at_once_equal_one_by_one(user_ids: list[str], n: int) -> None:
    assert partitions_of(user_ids, n).tolist() == [partition_of(user_id, n) for user_id in user_ids]
