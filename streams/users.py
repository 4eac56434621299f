"""The users' side: rows in memory, absorb, and who waits for a list.

`UserSide.absorb` applies a decoded fetch to the rows and gathers what must go to `interactions`. Plain synchronous code: the worker, the lockstep
engine and the tests call the same functions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infra.settings import Settings
from models.fusion import Lesson
from models.history import RECORD, Columns, HistoryRules, absorb
from models.lessons import LESSON, N_CONTEXT, ContextRules, Lessons
from models.marks import CLEAN, mark
from models.records import stacked
from models.user_row import EMPTY_ROW, N_TYPES
from streams.decode import Decoded, Decoder, Record
from streams.erasures import Erased, Erasures
from streams.events import EVENT_TYPES, NEGATIVE_TYPES, rating_scale
from streams.interactions import Section
from streams.lessons import Noted, joined
from streams.user_table import UserTable


def history_rules(settings: Settings) -> HistoryRules:
    """What the settings say about what is not shown again, decay and co-visitation, as the kernel takes it."""
    seen = settings.seen_event_types() - NEGATIVE_TYPES
    return HistoryRules(
        # 1: never shown again; 2: not shown again unless a positive event follows, as with all that weighs less than 0
        type_seen=np.array([1 if t in seen else 2 * (t in NEGATIVE_TYPES) for t in EVENT_TYPES], np.uint8),
        half_life_ms=settings.repeat_half_life_s * 1000.0,
        retention_ms=settings.retention_s * 1000,
        follow_window_ms=settings.covisitation_window_s * 1000,
        follow_depth=settings.covisitation_depth,
        bloom_is_final=bool(seen),
    )


def context_rules(settings: Settings) -> ContextRules:
    """How much each item of a history says to the factors."""
    return ContextRules(
        half_life_ms=settings.repeat_half_life_s * 1000.0,
        recency=settings.mf_recency,
        session_ms=settings.covisitation_window_s * 1000,
    )


@dataclass(slots=True)
class Absorbed:
    """What one fetch did, for metrics."""

    absorbed: int
    skipped: int
    duplicates: int


class UserSide:
    """Rows of the users of the partitions that are ours, and what waits to be said about items."""

    def __init__(self, settings: Settings, *, follow: bool = True) -> None:
        self.n_partitions = settings.partitions
        self.rules = history_rules(settings)
        self.context_rules = context_rules(settings)
        weights = settings.type_weights()
        self._type_weights = np.array([weights[name] for name in EVENT_TYPES], np.float32)
        self._learn = settings.learn == "on"
        self.erasures = Erasures(settings.erasure_key)
        self.decoder = Decoder(settings.partitions, rating_scale(settings), self.erasures)
        self.table = UserTable(settings.partitions, settings.max_users)
        self.position = np.zeros(settings.partitions, np.int64)  # next offset to absorb
        self.origins = np.full((settings.partitions, settings.partitions), -1, np.int64)
        self.origin_log: list[list[tuple[int, int, int]]] = [[] for _ in range(settings.partitions)]
        self.queues: list[deque[int]] = [deque() for _ in range(settings.partitions)]
        self.n_records = 0  # that wait for `take_records`, over all partitions
        self._records: list[list[np.ndarray]] = [[] for _ in range(settings.partitions)]
        self._lessons: list[list[Lessons]] = [[] for _ in range(settings.partitions)]
        self._judged: list[list[tuple[int, Lesson]]] = [[] for _ in range(settings.partitions)]
        self._base = np.zeros(settings.partitions, np.int64)
        self._now = 0

    def start(self, partition: int, offset: int, origins: Sequence[int] | None = None) -> None:
        """Begin a partition at `offset` with nothing in memory; `origins` as the checkpoint holds them."""
        self.table.drop(partition)
        self.queues[partition].clear()
        self.take_records(partition)
        self.take_lessons(partition)
        self.origin_log[partition].clear()
        self.position[partition] = offset
        self.origins[partition] = -1 if origins is None else origins

    def decode(self, partition: int, records: Sequence[Record]) -> Decoded:
        """Decode a fetch; the rows of its `missing` users must be admitted before `absorb`."""
        self._now += 1
        known = self.table.slots[partition]
        return self.decoder.decode(partition, records, known, self.origins[partition])

    def admit(self, partition: int, decoded: Decoded, stored: Sequence[bytes | None]) -> None:
        """Put the loaded rows of the missing users (None: a new user) into memory."""
        if not decoded.missing:
            return
        there = self.table.slots[partition]
        in_memory = np.array(decoded.slots + [there[user] for user, *_ in decoded.erased if user in there], np.int32)
        self.table.used[in_memory[in_memory >= 0]] = self._now  # they must not be evicted for the others
        self.load(partition, list(decoded.missing), stored)
        known, slots = self.table.slots[partition], decoded.slots
        for user, positions in decoded.missing.items():
            for k in positions:
                slots[k] = known[user]

    def erase(self, partition: int, erased: Iterable[Erased]) -> None:
        """Forget users of a decoded fetch, who must be in memory: their rows are blank, and wait for being removed with their lists."""
        table = self.table
        for user, offset, appended_ms in erased:
            slot = table.slots[partition][user]
            if table.rows["as_of"][slot] >= offset:  # he came back, and all this is read again
                continue
            table.rows[slot] = EMPTY_ROW
            table.rows["as_of"][slot] = offset
            table.changed[slot] = 1
            table.used[slot] = self._now
            if table.waiting_since[slot] == CLEAN:
                table.waiting_since[slot], table.produced_ms[slot] = offset, appended_ms
                self.queues[partition].appendleft(slot)  # in a flood lists wait long

    def load(self, partition: int, users: Sequence[str], stored: Sequence[bytes | None], keep: Sequence[int] = ()) -> None:
        """Put rows into memory; users that are there keep theirs, those at `keep` are not evicted for them."""
        self.table.used[list(keep)] = self._now
        self.table.admit(partition, users, stored, self._now)

    def weights(self, decoded: Decoded) -> np.ndarray:
        """What each event of a fetch counts, (n,) float32: its type's weight, and of a rating the share that its value is."""
        weights: np.ndarray = self._type_weights[np.array(decoded.types, np.uint8)]
        if decoded.shares:
            weights[list(decoded.shares)] *= np.array(list(decoded.shares.values()), np.float32)
        return weights

    def absorb(self, partition: int, decoded: Decoded, end_offset: int) -> Absorbed:
        """Apply a decoded fetch whose users are all in memory; `end_offset` follows its last record."""
        table, n = self.table, len(decoded.slots)
        self.origin_log[partition].extend(decoded.origins)
        if n and not self._records[partition] and not self._lessons[partition]:
            self._base[partition] = decoded.offsets[0]
        outcome = np.empty(n, np.uint8)
        if n:
            slots = np.array(decoded.slots, np.int32)
            offsets = np.array(decoded.offsets, np.int64)
            columns = Columns(
                slots=slots,
                offsets=offsets,
                items=np.array(decoded.items, np.uint64),
                event_ids=np.array(decoded.event_ids, np.uint64),
                times_ms=np.array(decoded.times_ms, np.int64),
                types=np.array(decoded.types, np.uint8),
                weights=self.weights(decoded),
            )
            records = np.empty(n * (1 + 2 * self.rules.follow_depth), RECORD)
            lessons = Lessons(
                np.empty(n, LESSON), np.empty(n * N_CONTEXT, np.uint64), np.empty(n * N_CONTEXT, np.uint8)
            )
            n_records, n_lessons, n_context = absorb(
                table.rows,
                columns,
                self.rules,
                outcome,
                records,
                int(self._base[partition]),
                self.context_rules,
                lessons,
            )
            if n_lessons and self._learn:
                heads, items, shares = lessons
                self._lessons[partition].append(
                    Lessons(heads[:n_lessons], items[:n_context].copy(), shares[:n_context].copy())
                )
            if n_records:
                self._records[partition].append(records[:n_records])
                self.n_records += n_records
            newly = np.empty(n, np.int32)
            n_new = mark(
                slots,
                offsets,
                np.array(decoded.appended_ms, np.int64),
                outcome,
                table.waiting_since,
                table.produced_ms,
                table.changed,
                newly,
            )
            table.used[slots] = self._now
            self.queues[partition].extend(newly[:n_new].tolist())
        self.position[partition] = end_offset
        counts = np.bincount(outcome, minlength=3)
        return Absorbed(int(counts[1]), int(counts[0]), int(counts[2]))

    def take_records(self, partition: int) -> Section:
        """What absorb has said about items since the last call."""
        parts = self._records[partition]
        base = int(self._base[partition])
        self._records[partition] = []
        self.n_records -= sum(map(len, parts))
        return Section(partition, base, stacked(parts, RECORD))

    def take_waiting(self, partition: int, limit: int) -> list[int]:
        """Slots of the users that have waited longest for a list, now to be published: at most `limit`."""
        queue, table = self.queues[partition], self.table
        slots = [queue.popleft() for _ in range(min(limit, len(queue)))]
        table.publishing_since[slots] = table.waiting_since[slots]
        table.waiting_since[slots] = CLEAN
        return slots

    def take_lessons(self, partition: int) -> Noted:
        """The lessons of what absorb has absorbed since the last call; to be taken together with the records."""
        parts, judged = self._lessons[partition], self._judged[partition]
        self._lessons[partition], self._judged[partition] = [], []
        return Noted(partition, int(self._base[partition]), joined(parts), judged)

    def judge(self, partition: int, decoded: Decoded, lessons: Iterable[Lesson]) -> None:
        """What the fusion learns from a batch that is about to be absorbed."""
        self._judged[partition] += [(decoded.offsets[-1], lesson) for lesson in lessons]

    def ask(self, partition: int, slots: Sequence[int]) -> None:
        """Put users on the waiting list without an event (their list must be rewritten)."""
        waiting = self.table.waiting_since
        asked = [slot for slot in slots if waiting[slot] == CLEAN]
        waiting[asked] = self.position[partition]
        self.table.produced_ms[asked] = 0
        self.queues[partition].extend(asked)

    def published(self, slots: Sequence[int]) -> None:
        """Their lists lie in Redis."""
        self.table.publishing_since[slots] = CLEAN


assert len(EVENT_TYPES) == N_TYPES
