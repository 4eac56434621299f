"""The interactions message: a round trip for any sections, no source ever cut in two, and whatever is foreign is passed over."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import Settings
from models.hashing import stable_hash
from models.history import RECORD
from models.item_rows import MAX_ID_BYTES
from streams import interactions
from streams.interactions import HEADER, LATEST_MS, MAX_RECORDS, NAME, SECTION, VERSION, ForeignMessage, NewerMessage, Section, pack, unpack
from streams.items import ItemTable

N = 4
TIME_MS = 1_763_778_821_000
TEXTS = [text for text in (f"item{k}" for k in range(100)) if stable_hash(text) % N == 1][:10]
HASHES = [stable_hash(text) for text in TEXTS]
NAMES = {stable_hash(text): text.encode() for text in TEXTS}
LARGE = 2**40  # no offset is small in a log that is years old


def section(partition: int, sources: list[int], base: int = LARGE) -> Section:
    """One touch a source, and a second record of an event's every third."""
    rows = []
    for k, source in enumerate(sources):
        rows.append((HASHES[k % len(HASHES)], 0, TIME_MS + k, 64, source))
        if k % 3 == 0:
            rows.append((HASHES[(k + 1) % len(HASHES)], HASHES[k % len(HASHES)], TIME_MS + k, 32, source))
    return Section(partition, base, np.array(rows, RECORD))


def absolute(sections: list[Section]) -> list[tuple[int, ...]]:
    """Every record with its partition and its offset there, in order within a partition."""
    found = [
        (one.partition, one.base + int(r["source"]), int(r["item"]), int(r["other"]), int(r["time_ms"]), int(r["weight"]))
        for one in sections for r in one.records
    ]
    return sorted(found, key=lambda record: record[0])


sources = st.lists(st.integers(0, 30), min_size=1, max_size=20).map(sorted)


@given(st.lists(st.tuples(st.integers(0, N - 1), sources), min_size=1, max_size=5, unique_by=lambda one: one[0]), st.integers(1, 8))
def test_round_trip(said: list[tuple[int, list[int]]], most: int) -> None:
    """Sections come back as they were, and all records of one source in one message, however small messages must be."""
    sections = [section(p, some) for p, some in said]
    before = absolute(sections)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interactions, "MAX_RECORDS", most)
        values = list(pack(sections, NAMES))
    messages = [unpack(value, 1, N) for value in values]
    assert absolute([one for message in messages for one in message.sections]) == before
    places: dict[tuple[int, int], int] = {}
    for k, message in enumerate(messages):
        assert {int(r["item"]) for one in message.sections for r in one.records if not r["other"]} == set(message.names)
        assert message.names.items() <= NAMES.items()
        for one in message.sections:
            for source in one.records["source"].tolist():
                assert places.setdefault((one.partition, one.base + source), k) == k, "records of one source in two messages"


def test_more_than_one_message_holds() -> None:
    """Each event says three things: the limit falls in the middle of one."""
    events = MAX_RECORDS // 3 + 100
    records = np.zeros(3 * events, RECORD)
    records["item"], records["time_ms"], records["weight"] = HASHES[0], TIME_MS, 64
    records["source"] = np.repeat(np.arange(events), 3)
    messages = [unpack(value, 1, N) for value in pack([Section(2, LARGE, records), section(3, [1])], NAMES)]
    sections = [one for message in messages for one in message.sections]
    assert len(messages) == 2 and all(sum(len(one.records) for one in message.sections) <= MAX_RECORDS for message in messages)
    found = np.concatenate([one.base - LARGE + one.records["source"] for one in sections if one.partition == 2])
    assert (found == records["source"]).all()
    assert len(sections[0].records) == MAX_RECORDS // 3 * 3


def raw(rows: list[tuple[int, int, int, int, int]], names: bytes = b"", first: int = 0) -> bytes:
    records = np.array(rows, RECORD)
    last = first + rows[-1][-1]
    return HEADER.pack(VERSION, 1, len(rows)) + SECTION.pack(0, len(rows), first, last) + records.tobytes() + names


TOUCH = (HASHES[0], 0, TIME_MS, 64, 0)
GOOD = raw([TOUCH, (HASHES[1], 0, TIME_MS, 64, 1)])


def name(item: int, text: bytes, n_bytes: int | None = None) -> bytes:
    return NAME.pack(item, len(text) if n_bytes is None else n_bytes) + text


def long_name(n_bytes: int) -> bytes:
    text = "x" * n_bytes
    return name(stable_hash(text), text.encode())


FOREIGN: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "text": b"hello, is anybody there?",
    "cut short": GOOD[:-1],
    "no section": HEADER.pack(VERSION, 0, 0),
    "no record": HEADER.pack(VERSION, 1, 0) + SECTION.pack(0, 0, 0, 0),
    "more records than there are": HEADER.pack(VERSION, 1, 2**31) + GOOD[HEADER.size:],
    "another partition's item": raw([(HASHES[0] + 1, 0, TIME_MS, 64, 0)]),
    "no item": raw([(0, 0, TIME_MS, 64, 0)]),
    "sources not in order": raw([(HASHES[0], 0, TIME_MS, 64, 5), (HASHES[0], 0, TIME_MS, 64, 2)]),
    "a time before 1970": raw([(HASHES[0], 0, -1, 64, 0)]),
    "a time beyond rows": raw([(HASHES[0], 0, LATEST_MS + 1, 64, 0)]),
    "the largest time": raw([(HASHES[0], 0, 2**63 - 1, 64, 0)]),
    "negative offsets": raw([TOUCH], first=-5),
    "last source is another": GOOD[:HEADER.size] + SECTION.pack(0, 2, 0, 7) + GOOD[HEADER.size + SECTION.size:],
    "a section of no partition": GOOD[:HEADER.size] + SECTION.pack(N, 2, 0, 1) + GOOD[HEADER.size + SECTION.size:],
    "a record in no section": GOOD[:HEADER.size] + SECTION.pack(0, 1, 0, 0) + GOOD[HEADER.size + SECTION.size:],
    **{f"name of {n} bytes": GOOD + long_name(n) for n in (MAX_ID_BYTES + 1, 200, 255)},
    "empty name": GOOD + name(HASHES[0], b""),
    "empty name of its own hash": GOOD + name(stable_hash(""), b""),
    "name of another": GOOD + name(HASHES[0], TEXTS[1].encode()),
    "name cut short": GOOD + name(HASHES[0], TEXTS[0].encode())[:-1],
    "name without text": GOOD + struct.pack("<Q", HASHES[0]),
    "name not UTF-8": GOOD + name(HASHES[0], b"\xff\xfe"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_messages(what: str) -> None:
    with pytest.raises(ForeignMessage):
        unpack(FOREIGN[what], 1, N)
    table = ItemTable(Settings(partitions=N))
    assert table.fold(1, 3, FOREIGN[what]) == []  # all replicas pass it over, and go on behind it
    assert table.position[1] == 4 and table.n_items == 0 and table.clock_ms == 0 and (table.highest == -1).all()


def test_what_is_near_is_none_of_them() -> None:
    unpack(GOOD, 1, N)
    text = next(t for t in (f"{k}".ljust(MAX_ID_BYTES, "x") for k in range(99)) if stable_hash(t) % N == 1)
    value = raw([(stable_hash(text), 0, LATEST_MS, 64, 0)], name(stable_hash(text), text.encode()))
    assert unpack(value, 1, N).names == {stable_hash(text): text.encode()}
    unpack(raw([TOUCH, TOUCH]), 1, N)  # two records of one source
    with pytest.raises(NewerMessage):
        unpack(struct.pack("<H", VERSION + 1) + GOOD[2:], 1, N)


@pytest.fixture
def fold() -> Callable[..., ItemTable]:
    def run(*said: list[Section]) -> ItemTable:
        table = ItemTable(Settings(partitions=N))
        values = [value for sections in said for value in pack(sections, NAMES)]
        for offset, value in enumerate(values):
            table.fold(1, offset, value)
        return table

    return run


def counts(table: ItemTable) -> dict[str, bytes]:
    rows = table.rows[: table.n_items].copy()
    rows["as_of"] = 0
    return {table.ids[slot]: rows[slot].tobytes() for slot in range(table.n_items) if rows[slot]["counts"].any()}


def test_the_source_guard_takes_what_is_beyond_it(fold: Callable[..., ItemTable]) -> None:
    """A second worker absorbs from the checkpoint and cuts its messages elsewhere: part of one was said before."""
    every = list(range(12))
    whole = fold([section(0, every), section(2, every)])
    first = section(0, every)
    early = Section(0, LARGE, first.records[first.records["source"] < 8])
    late = Section(0, LARGE, first.records[first.records["source"] >= 3])
    overlapping = fold([early, section(2, every)], [late], [section(2, every)], [early, late][:1])
    assert counts(overlapping) == counts(whole)
    assert overlapping.highest[1].tolist() == [LARGE + 11, -1, LARGE + 11, -1]
    assert overlapping.n_folded == whole.n_folded
    assert fold([section(0, every)], [section(1, every)]).n_folded == whole.n_folded  # guarded each by itself
