"""The commit cycle: what makes absorbed events durable, in the only order that survives a kill at any point.

cut: copy the changed rows and take what was said about items, at a batch boundary
send: interactions, moved events and dead letters, until Kafka has acknowledged all of them
write: the copied rows, then the checkpoint, fenced

A row in Redis therefore never holds an event whose interactions might be lost. The checkpoint is a low-water mark: it
stays behind every event of which a list is not yet published.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from models.marks import oldest_waiting
from streams.fence import FenceLost
from streams.lessons import pack as pack_lessons
from streams.outbox import Message, Outbox, interactions_messages
from streams.state import State, Tenure
from streams.store import Store

#: In a flood a cycle begins when it would take at most this share of the time: rows that change often coalesce. Else
#: cycles are short and frequent: a long one holds up lists.
FLOOD_EVENTS = 10_000
SHARE = 0.12
LONGEST_S = 5.0
#: Without a batch for this long absorb is idle, and what is left is committed without waiting for a share.
IDLE_S = 0.02
#: With so many records about items waiting, they are sent ahead of the next cycle.
SEND_RECORDS = 50_000
#: How often the fence is looked at when nothing is written: so soon a flushed Redis is noticed at rest.
VERIFY_S = 1.0


@dataclass(slots=True)
class _Cut:
    """What one cycle makes durable of one partition."""

    tenure: Tenure
    position: int
    slots: np.ndarray
    users: list[str]
    rows: np.ndarray


@contextmanager
def _all_or_broken(tenures: list[Tenure]) -> Iterator[None]:
    """What a cycle has taken is gone if it fails or is cancelled: a later one must not move the checkpoint past it."""
    try:
        yield
    except BaseException:
        for tenure in tenures:
            tenure.broken = True
        raise


class Committer:
    """Runs commit cycles."""

    def __init__(self, state: State, store: Store, outbox: Outbox) -> None:
        self._state, self._store, self._outbox = state, store, outbox
        self._turn = asyncio.Lock()  # one cycle at a time
        self._sending = asyncio.Lock()  # what is taken first is sent first
        self._work = asyncio.Event()
        self._absorbed_s = 0.0
        self._verified_s = 0.0

    def absorbed(self) -> None:
        """There is something to commit."""
        self._absorbed_s = time.monotonic()
        self._work.set()

    async def run(self) -> None:
        """Commit for ever, as often as the settings and the load allow."""
        interval_s = self._state.settings.commit_interval_ms / 1000
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(VERIFY_S):
                    await self._work.wait()
            self._work.clear()
            started = time.monotonic()
            await self.commit()
            took = time.monotonic() - started
            flooded = self._state.lag() > FLOOD_EVENTS
            rest = (min(LONGEST_S, max(interval_s, took / SHARE)) if flooded else interval_s) - took
            while rest > 0:
                step = min(rest, IDLE_S)
                await asyncio.sleep(step)
                rest -= step
                now = time.monotonic()
                if now - started > interval_s and now - self._absorbed_s > IDLE_S and not self._state.lag():
                    break

    async def run_ahead(self) -> None:
        """Send what is said about items ahead of the rows when there is much of it, also while rows are being written.

        Sending early is always safe, and in a flood neither items nor absorb must wait for a large cycle.
        """
        while True:
            await asyncio.sleep(IDLE_S)
            if self._state.users.n_records > SEND_RECORDS:
                await self._send_ahead()

    async def _send_ahead(self) -> None:
        async with self._sending:
            tenures = self._whole(None)
            with _all_or_broken(tenures), self._state.metrics.stage.labels("send").time():
                await self._outbox.send(self._messages(tenures))

    def _whole(self, partitions: Iterable[int] | None) -> list[Tenure]:
        """Tenures of which nothing is missing between Redis and what comes next."""
        chosen = self._state.tenures.keys() if partitions is None else set(partitions)
        return [t for p, t in self._state.tenures.items() if p in chosen and not t.broken]

    async def commit(self, partitions: Iterable[int] | None = None) -> None:
        """One cycle over these partitions, or over all that are ours."""
        timer = self._state.metrics.stage.labels
        async with self._turn:
            async with self._sending:
                tenures = self._whole(partitions)
                with _all_or_broken(tenures):
                    with timer("cut").time():
                        cuts, messages = self._cut(tenures)
                    with timer("send").time():
                        await self._outbox.send(messages)
            self._state.n_saving = sum(len(cut.users) for cut in cuts)
            try:
                with _all_or_broken(tenures), timer("save").time():
                    await self._write(cuts)
            finally:
                self._state.n_saving = 0

    def _cut(self, tenures: list[Tenure]) -> tuple[list[_Cut], list[Message]]:
        users, table = self._state.users, self._state.users.table
        changed = np.flatnonzero(table.changed)
        owners = table.partition[changed]
        messages = self._messages(tenures)
        cuts = []
        for tenure in tenures:
            p = tenure.partition
            slots = changed[owners == p]
            table.changed[slots] = 0
            table.saving[slots] = 1
            ids = table.ids
            cuts.append(
                _Cut(tenure, int(users.position[p]), slots, [ids[s] for s in slots.tolist()], table.rows[slots])
            )
        return cuts, messages

    def _messages(self, tenures: list[Tenure]) -> list[Message]:
        """Take what these partitions have to say since the last call."""
        users, settings = self._state.users, self._state.settings
        said = [users.take_records(tenure.partition) for tenure in tenures]
        topic, names = settings.topic("interactions"), users.decoder.names
        messages = interactions_messages(topic, said, names, settings.partitions)
        noted = [users.take_lessons(tenure.partition) for tenure in tenures]
        messages += [Message(settings.topic("lessons"), 0, None, value) for value in pack_lessons(noted)]
        for tenure in tenures:
            if self._store.keys.is_live:  # a shadow writes nothing that others read
                messages += tenure.outgoing
            tenure.outgoing = []
        return messages

    async def _write(self, cuts: list[_Cut]) -> None:
        state, store = self._state, self._store
        oldest = self._oldest_waiting()
        commands: dict[int, list[bytes]] = {}
        marks: dict[int, int] = {}
        for cut in cuts:
            p = cut.tenure.partition
            if not state.current(cut.tenure) or cut.tenure.broken:
                continue
            low_water = max(cut.tenure.checkpoint, min(cut.position, int(oldest[p])))
            rows = store.save_users(p, cut.users, cut.rows)
            if rows or low_water > cut.tenure.checkpoint:
                marks[p] = low_water
                origins = self._origins_at(cut.tenure, low_water)
                commands[p] = [*rows, store.save_checkpoint(p, low_water, origins)]
        now = time.monotonic()
        if not commands and now - self._verified_s > VERIFY_S:
            commands = {cut.tenure.partition: [] for cut in cuts if state.current(cut.tenure)}
        if commands:
            self._verified_s = now
        tokens = {cut.tenure.partition: cut.tenure.token for cut in cuts}
        while commands:
            try:
                await store.fence.write(commands, tokens)
                break
            except FenceLost as lost:
                self._state.lost(lost)
                commands = {p: some for p, some in commands.items() if p not in lost.partitions}
        for cut in cuts:
            if state.current(cut.tenure):
                state.users.table.saving[cut.slots] = 0
                if cut.tenure.partition in commands and cut.tenure.partition in marks:
                    self._advance(cut.tenure, marks[cut.tenure.partition])

    def _oldest_waiting(self) -> np.ndarray:
        table = self._state.users.table
        oldest: np.ndarray = oldest_waiting(
            table.partition, table.waiting_since, table.publishing_since, self._state.settings.partitions
        )
        return oldest

    def _origins_at(self, tenure: Tenure, low_water: int) -> np.ndarray:
        origins = tenure.origins.copy()
        for offset, source, source_offset in self._state.users.origin_log[tenure.partition]:
            if offset < low_water:
                origins[source] = max(origins[source], source_offset)
        return origins

    def _advance(self, tenure: Tenure, low_water: int) -> None:
        tenure.origins = self._origins_at(tenure, low_water)
        tenure.checkpoint = low_water
        entries = self._state.users.origin_log
        entries[tenure.partition] = [e for e in entries[tenure.partition] if e[0] >= low_water]
