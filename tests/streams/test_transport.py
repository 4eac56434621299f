"""The batch transport without a broker: aiokafka's real fetcher over logs in memory, Faust's real app without a start.

aiokafka's and Faust's insides that we lean on are exercised for real, so a release that changes them fails here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import IllegalStateError, KafkaTimeoutError, NodeNotReadyError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import OffsetAndMetadata
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from infra.settings import Settings
from streams import fetching
from streams.app import BatchOrderError, Seldom, StreamApp, build_app, reseek
from streams.earlier import Earlier, HoleError
from streams.fetching import BUSY_ARRIVALS, IDLE_WAIT_MS, Batch, EventFetcher, LogError, Pace
from streams.transport import BatchConsumer, PatientTableManager

TOPIC = "t.events"
WAIT_S = 5.0


class Broker:
    """Answers fetches and offset lookups from lists; keeps the fetch requests. `held`: fetches wait while it is set."""

    def __init__(self, sizes: list[int]) -> None:
        self.logs = {p: (0, size) for p, size in enumerate(sizes)}  # partition -> (first offset, end)
        self.fetches: list[Any] = []
        self._metadata_max_age_ms = 300_000
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: 1, broker_metadata=lambda node: None)

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        await asyncio.sleep(0.001)
        if type(request).__name__.startswith("Offset"):
            return SimpleNamespace(API_VERSION=1, topics=[
                (topic, [(p, 0, -1, self.logs[p][0]) for p, _ in parts]) for topic, parts in request._topics])
        self.fetches.append(request)
        answer = [(p, *self.read(p, offset)) for _, parts in request.topics for p, offset, _ in parts]
        if not any(part[-1] for part in answer) and not any(part[1] for part in answer):
            await asyncio.sleep(min(request._max_wait_ms, 20) / 1000)
        return SimpleNamespace(API_VERSION=4, topics=[(TOPIC, answer)])

    def read(self, partition: int, offset: int) -> tuple[Any, ...]:
        """(error, high watermark, last stable offset, aborted, records): at most 1,000 of them."""
        first, end = self.logs[partition]
        if not first <= offset <= end:
            return 1, end, end, [], b""
        last = min(end, offset + 1000)
        if offset == last:
            return 0, end, end, [], b""
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
        for number in range(offset, last):
            builder.append(number - offset, timestamp=1, key=b"k", value=b"%d" % number, headers=[])
        block = bytearray(builder.build())
        block[0:8] = offset.to_bytes(8, "big")  # the broker writes the first offset; the checksum leaves it out
        return 0, end, end, [], bytes(block)


class Rig:
    """A consumer that never connects, with aiokafka's own fetcher over a `Broker`."""

    def __init__(self, sizes: list[int], pace: Pace | None = None, earlier: Earlier | None = None) -> None:
        self.broker = Broker(sizes)
        self.consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", group_id=None)
        self.broker._loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
        self.consumer._fetcher = Fetcher(self.broker, self.consumer._subscription, auto_offset_reset="earliest", retry_backoff_ms=1)
        self.events = EventFetcher(self.consumer, TOPIC, pace or Pace(4, 65_536), earlier)
        self.tps = [TopicPartition(TOPIC, p) for p in range(len(sizes))]
        self.consumer._subscription.assign_from_user(self.tps)
        self._coordinator = asyncio.ensure_future(self._tell_committed())

    async def _tell_committed(self) -> None:
        """What a group's coordinator does: here, that nothing was ever committed."""
        assignment = self.consumer._subscription.subscription.assignment
        while await assignment.commit_refresh_needed.wait():
            assignment.commit_refresh_needed.clear()
            for tp in assignment.requesting_committed():
                assignment.state_value(tp).update_committed(OffsetAndMetadata(-1, ""))

    async def take(self, timeout: float = WAIT_S) -> list[Batch]:
        found = await self.events.take(self.tps, timeout, lambda: False)
        return [batch for batches in found.values() for batch in batches]

    async def close(self) -> None:
        self._coordinator.cancel()
        await self.consumer._fetcher.close()
        self.consumer._closed = True


def with_rig(sizes: list[int], body: Callable[[Rig], Coroutine[Any, Any, None]], pace: Pace | None = None) -> None:
    async def run() -> None:
        rig = Rig(sizes, pace)
        try:
            await asyncio.wait_for(body(rig), 30)
        finally:
            await rig.close()
    asyncio.run(run())


def test_nothing_is_fetched_before_the_seek_and_then_everything_once() -> None:
    async def body(rig: Rig) -> None:
        assert await rig.take(0.05) == [] and rig.broker.fetches == []
        for tp in rig.tps:
            rig.events.seek(tp, 10, epoch=3)
        place = dict.fromkeys(range(3), 10)
        while any(offset < 5000 for offset in place.values()):
            for batch in await rig.take():
                assert (batch.start, batch.epoch) == (place[batch.partition], 3)
                assert [int(record.value) for record in batch.records] == list(range(batch.start, batch.next))
                assert (batch.first, batch.last, len(batch)) == (batch.start, batch.next - 1, batch.next - batch.start)
                place[batch.partition] = batch.next
    with_rig([5000, 5000, 5000], body)


def test_records_are_aiokafkas_raw_ones() -> None:
    async def body(rig: Rig) -> None:
        rig.events.seek(rig.tps[0], 0, epoch=1)
        record = (await rig.take())[0].records[0]
        assert (record.offset, record.key, record.value, list(record.headers)) == (0, b"k", b"0", [])
        assert record.timestamp_type in (0, 1) and not hasattr(record, "topic")
    with_rig([5], body)


def test_partitions_stay_level_on_a_backlog() -> None:
    async def body(rig: Rig) -> None:
        for tp in rig.tps:
            rig.events.seek(tp, 0, epoch=1)
        place = dict.fromkeys(range(8), 0)
        lead = 0
        while min(place.values()) < 9000:
            for batch in await rig.take():
                place[batch.partition] = batch.next
            lead = max(lead, max(place.values()) - min(place.values()))
        assert lead <= 2 * 1000  # two fetches; aiokafka alone: as far as one partition reaches
    with_rig([10_000] * 8, body)


def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BATCH", 100)

    async def body(rig: Rig) -> None:
        rig.events.seek(rig.tps[0], 0, epoch=1)
        assert [len(batch) for _ in range(3) for batch in await rig.take()] == [100, 100, 100]
    with_rig([1000], body)


def test_a_seek_drops_what_is_buffered_and_stamps_what_follows() -> None:
    async def body(rig: Rig) -> None:
        for tp in rig.tps:
            rig.events.seek(tp, 0, epoch=1)
        await rig.take()
        rig.events.seek(rig.tps[0], 3, epoch=2)
        seen: dict[int, Batch] = {}
        while 0 not in seen:
            seen |= {batch.partition: batch for batch in await rig.take()}
        assert (seen[0].start, seen[0].epoch) == (3, 2)
        rig.events.seek(rig.tps[0], 0, epoch=1)  # an older one that comes late changes nothing
        while (late := {batch.partition: batch for batch in await rig.take()}.get(0)) is None:
            pass
        assert (late.start, late.epoch) == (seen[0].next, 2)
        assert all(batch.epoch == 1 for partition, batch in seen.items() if partition)
        with pytest.raises(IllegalStateError):
            rig.events.seek(TopicPartition(TOPIC, 99), 0, epoch=3)
    with_rig([4000, 4000], body)


def test_nothing_is_taken_while_closed_and_nothing_gets_lost_by_it() -> None:
    async def body(rig: Rig) -> None:
        rig.events.seek(rig.tps[0], 0, epoch=1)
        assert await rig.events.take(rig.tps, 0.1, lambda: True) == {}
        assert (await rig.take())[0].start == 0
    with_rig([10], body)


def test_events_deleted_before_they_were_read_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async def body(rig: Rig) -> None:
        rig.broker.logs[0] = (50, 100)
        rig.events.seek(rig.tps[0], 20, epoch=1)
        batch = (await rig.take())[0]
        assert (batch.start, batch.first) == (20, 50)
    with caplog.at_level(logging.WARNING):
        with_rig([100], body)
    assert "offsets 20 to 49 were deleted" in caplog.text


def test_a_log_that_was_cut_short_stops_the_worker() -> None:
    async def body(rig: Rig) -> None:
        rig.events.seek(rig.tps[0], 0, epoch=1)
        while (await rig.take())[-1].next < 100:
            pass
        rig.broker.logs[0] = (0, 40)  # aiokafka finds 100 out of range and goes to the beginning
        with pytest.raises(LogError, match="goes on at offset 0, but everything before 100 was read"):
            await rig.take()
    with_rig([100], body)


def test_requests_carry_the_pace() -> None:
    now = [0.0]
    pace = Pace(4, 65_536, lambda: now[0])

    async def body(rig: Rig) -> None:
        rig.events.seek(rig.tps[0], 0, epoch=1)
        await rig.take()
        assert (rig.broker.fetches[0]._min_bytes, rig.broker.fetches[0]._max_wait_ms) == (1, IDLE_WAIT_MS)
        for _ in range(BUSY_ARRIVALS):
            pace.arrived()
        rig.broker.fetches.clear()
        await rig.take(0.2)
        assert (65_536, 4) in {(request._min_bytes, request._max_wait_ms) for request in rig.broker.fetches}
    with_rig([10], body, pace)


def test_pace_waits_long_at_rest_short_under_load_and_forgets() -> None:
    now = [0.0]
    pace = Pace(4, 65_536, lambda: now[0])
    assert pace.next(partial=False) == (1, IDLE_WAIT_MS)
    assert pace.next(partial=True) == (1, 4)
    for _ in range(BUSY_ARRIVALS):
        now[0] += 0.005
        pace.arrived()
    assert pace.next(partial=False) == pace.next(partial=True) == (65_536, 4)
    now[0] += 0.1
    assert pace.next(partial=False) == (1, IDLE_WAIT_MS)
    for _ in range(20):
        now[0] += 0.03  # 33 answers a second: each event at once is cheaper than asking every 4 ms
        pace.arrived()
        assert pace.next(partial=False) == (1, IDLE_WAIT_MS)


def test_what_is_overridden_is_still_there() -> None:
    """A renamed method of Faust would leave its override without effect, silently."""
    for ours, theirs in [(BatchConsumer, Consumer), (PatientTableManager, TableManager)]:
        for name in vars(ours).keys() - {"__init__", "__module__", "__doc__", "__annotations__", "logger", "abstract", "app", "_tasks",
                                         "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__"}:
            if not name.startswith(("_is_", "_checkpoints", "_log_ranges", "_as_one", "starts")):
                assert hasattr(theirs, name) or hasattr(ours.__mro__[1], name), name
    for name in ("getmany", "_fetch_records", "_commit", "_create_worker_consumer", "on_thread_stop", "close", "on_crash"):
        assert hasattr(AIOKafkaConsumerThread, name), name
    assert "perform_seek" in inspect.getsource(Recovery._resume_streams)
    assert "seek_to_committed" in inspect.getsource(Consumer.perform_seek)
    assert "self.wait_first" in inspect.getsource(Recovery._wait)
    assert "_wait_next_records" in inspect.getsource(Consumer.getmany) and "_to_message" in inspect.getsource(Consumer.getmany)


class Host:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def assign(self, partitions: set[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def revoke(self, partitions: set[int]) -> None:
        self.calls.append(("revoke", partitions))

    async def absorb(self, batch: Batch) -> None:
        await self.gate.wait()
        self.calls.append((batch.partition, batch.start, batch.next))

    def low_water(self, partition: int) -> int | None:
        return 7


def with_app(body: Callable[[StreamApp, Host, list[Any]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        host = Host()
        app = build_app(Settings.load(env={}, prefix="t."), host)
        seeks: list[Any] = []

        async def seek_events(wanted: Any) -> None:
            seeks.append(dict(wanted))
        app.consumer._thread.seek_events = seek_events  # type: ignore[attr-defined]
        await asyncio.wait_for(body(app, host, seeks), 30)
    asyncio.run(run())


def batch(app: StreamApp, start: int, end: int, partition: int = 0) -> Batch:
    return Batch(partition, [SimpleNamespace(offset=end - 1, timestamp=1, timestamp_type=1)], app.epoch(partition), start, end)


def test_stale_batches_never_reach_the_host() -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        await app.seek_events({0: 5, 1: 0})
        await app.deliver(batch(app, 5, 9))
        fetched_before = batch(app, 9, 12)
        again = reseek(app, {0: 2})
        task = asyncio.ensure_future(again)
        await asyncio.sleep(0)
        await app.deliver(fetched_before)
        await task
        await app.deliver(batch(app, 2, 4))
        await app.deliver(batch(app, 0, 3, partition=1))
        assert host.calls == [(0, 5, 9), (0, 2, 4), (1, 0, 3)]
        await app.revoke({0})
        n_seeks = len([seek for seek in seeks if seek])
        await reseek(app, {0: 1})
        assert len([seek for seek in seeks if seek]) == n_seeks and not app.owns(0)
        epochs = [epoch for seek in seeks for tp, (_, epoch) in seek.items() if tp.partition == 0]
        assert epochs[0] < epochs[1] < app.epoch(0)
    with_app(body)


def test_a_hole_between_batches_is_an_error_not_a_loss() -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        await app.seek_events({0: 5})
        await app.deliver(batch(app, 5, 9))
        with pytest.raises(BatchOrderError, match="starts at 10, expected 9"):
            await app.deliver(batch(app, 10, 12))
        with pytest.raises(BatchOrderError):
            await app.deliver(batch(app, 5, 9))
        assert host.calls == [(0, 5, 9)]
    with_app(body)


def test_revocation_waits_for_the_batch_at_hand_and_lets_no_other_through() -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        await app.seek_events({0: 0})
        host.gate.clear()
        at_hand = asyncio.ensure_future(app.deliver(batch(app, 0, 3)))
        queued = batch(app, 3, 6)
        await asyncio.sleep(0)
        leaving = asyncio.ensure_future(app.revoke({0}))
        await asyncio.sleep(0)
        following = asyncio.ensure_future(app.deliver(queued))
        await asyncio.sleep(0)
        host.gate.set()
        await asyncio.gather(at_hand, leaving, following)
        assert host.calls == [(0, 0, 3), ("revoke", {0})]
    with_app(body)


def test_revocation_does_not_hang_with_an_absorb_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.app.ABSORB_S", 0.02)

    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        await app.seek_events({0: 0})
        host.gate.clear()
        hanging = asyncio.ensure_future(app.deliver(batch(app, 0, 3)))
        await asyncio.sleep(0)
        await app.revoke({0})
        assert host.calls == [("revoke", {0})]
        hanging.cancel()
    with_app(body)


def test_a_failing_flush_ends_the_process_but_not_the_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        async def fails(partitions: set[int]) -> None:
            raise RuntimeError("no")
        await app.seek_events({0: 0})
        host.revoke = fails  # type: ignore[method-assign]
        await app.revoke({0})
        assert app.failed.is_set() and isinstance(app.crash_reason, RuntimeError)
    with_app(body)


def test_a_poll_is_one_message_and_faust_books_nothing_of_it() -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        consumer = app.consumer
        assert isinstance(consumer, BatchConsumer)
        first, second = batch(app, 0, 3), batch(app, 0, 5, partition=1)
        tp, other = TP("t.events", 0), TP("other", 0)
        merged = consumer._as_one({tp: [first], TP("t.events", 1): [second], other: ["x", "y"]})
        assert merged == {other: ["x", "y"], tp: [[first, second]]}
        assert consumer._as_one({}) == {}
        message = consumer._to_message(tp, [first, second])
        assert (message.value, message.offset, message.tp) == ([first, second], 2, tp)
        consumer._read_offset[tp] = 9
        consumer._read_offset.update({tp: 9, other: 4})
        assert consumer._read_offset[tp] is None and consumer._read_offset[other] == 4
        await consumer._add_gap(tp, 0, 10)
        assert not consumer._gap[tp]
        consumer._acked[tp].append(2)
        consumer._acked_index[tp].add(2)
        assert consumer._new_offset(tp) == 7 and not consumer._acked[tp] and not consumer._acked_index[tp]
        consumer._get_active_partitions().add(tp)
        consumer.on_buffer_full(tp)
        assert tp in consumer._get_active_partitions()
    with_app(body)


def test_waiting_for_kafka_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        tp, answers = TP("t.events", 0), [KafkaTimeoutError(), NodeNotReadyError(), {TP("t.events", 0): (4, 9)}]

        async def log_ranges(tps: set[TP]) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def at_once(_: float) -> None:
            pass

        assert isinstance(app.consumer, BatchConsumer)
        monkeypatch.setattr(app.consumer._thread, "log_ranges", log_ranges)
        monkeypatch.setattr("streams.transport.asyncio", SimpleNamespace(sleep=at_once, to_thread=asyncio.to_thread))
        assert await app.consumer.starts({tp: 5}) == {tp: 5}
        # what files hold, where Kafka holds nothing
        app.earlier = Earlier(lambda: SimpleNamespace(range=lambda _: (0, 5)), "folder", [0], None)
        answers += [{tp: (6, 6)}, {tp: (6, 7)}]
        assert await app.consumer.starts({tp: 5}) == {tp: 6}
        with pytest.raises(HoleError):
            await app.consumer.starts({tp: 5})
    with_app(body)


def test_waiting_for_redis_has_no_end() -> None:
    async def body(app: StreamApp, host: Host, seeks: list[Any]) -> None:
        tables = app.tables
        assert isinstance(tables, PatientTableManager)
        await tables.recovery._wait(asyncio.sleep(0.05), timeout=0.001)  # Faust's own gives up here, for good
    with_app(body)


def test_a_broker_that_is_away_is_told_of_seldom() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])

    def passes(text: str, *values: object) -> bool:
        return seldom.filter(logging.LogRecord("x", logging.ERROR, "", 0, text, values, None))

    assert [passes("node %s", 1), passes("node %s", 2), passes("other")] == [True, False, True]
    now[0] = 10.0
    assert passes("node %s", 3)
