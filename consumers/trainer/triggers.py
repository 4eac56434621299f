"""Why a training starts now: the clock, the number of new events, or lists that hit less often for good.

The hit rate is judged here from the topic `lessons`, by the same code as in the workers (models/hit_rate.py): so it needs no worker's
memory, and a worker that comes or goes is no drift.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from infra.settings import Settings
from models.hit_rate import HitRate
from streams.lessons import ForeignLessons, unpack

log = logging.getLogger(__name__)

#: Between the beginnings of two trainings that events or drift start: a training is no answer to what happens within minutes.
REST_S = 600
POLL_MS = 500


@dataclass(frozen=True)
class Circumstances:
    """last_began_ms: when the last training began, None: there was none; n_new: events since; n_drifts: falls of the hit rate since."""

    now_ms: int
    last_began_ms: int | None
    n_new: int
    n_drifts: int


def reason_to_train(settings: Settings, now: Circumstances) -> str | None:
    """Why a training is due, or None. The first one is due as soon as anything is there, unless all reasons are off."""
    by_clock, by_events, by_drift = settings.train_every_s > 0, settings.train_events > 0, settings.train_on_drift == "on"
    if not now.n_new:
        return None
    if now.last_began_ms is None:
        if by_events:
            return f"{now.n_new:,} events, the first ones" if now.n_new >= settings.train_events else None
        return "the first one" if by_clock or by_drift else None
    since_s = (now.now_ms - now.last_began_ms) / 1000
    if by_clock and since_s >= settings.train_every_s:
        return f"{settings.train_every_s:,} s since the last one"
    if since_s < REST_S:
        return None
    if by_events and now.n_new >= settings.train_events:
        return f"{now.n_new:,} new events"
    if by_drift and now.n_drifts:
        return "the hit rate has fallen for good"
    return None


class DriftWatch:
    """Counts falls of the hit rate, from now on: `n_drifts`; and the lessons that it has watched: `n_judged`."""

    def __init__(self, settings: Settings) -> None:
        self.n_drifts = self.n_judged = 0
        self._hits = HitRate()
        self._n_partitions = settings.partitions
        self._highest: dict[int, int] = {}
        self._consumer = AIOKafkaConsumer(
            settings.topic("lessons"), **settings.kafka_client_args(), client_id="streamrec-trainer", enable_auto_commit=False,
            auto_offset_reset="latest", request_timeout_ms=settings.request_timeout_ms)

    async def run(self) -> None:
        """For ever."""
        await self._consumer.start()
        try:
            while True:
                try:
                    found = await self._consumer.getmany(timeout_ms=POLL_MS)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    await asyncio.sleep(1.0)
                    continue
                for records in found.values():
                    for record in records:
                        self.take(record.value)
        finally:
            await self._consumer.stop()

    def take(self, value: bytes | None) -> None:
        """One message of `lessons`; what was sent again after a crash counts once."""
        try:
            noted = unpack(value, self._n_partitions)
        except ForeignLessons:  # the workers say it
            return
        for part in noted:
            highest = self._highest.get(part.partition, -1)
            for source, lesson in part.judged:  # those of one batch have one source
                if source > highest:
                    self._highest[part.partition] = source
                    self.n_judged += 1
                    self._hits.add(lesson.n_hits, lesson.n)
        if self._hits.n_drifts > self.n_drifts:
            self.n_drifts = self._hits.n_drifts
            log.warning("the hit rate has fallen for good, to %.3f", self._hits.value)
