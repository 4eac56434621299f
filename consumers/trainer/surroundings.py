"""What a training takes from outside and gives back to it: events, who is served, an announcement.

`LiveSystem` is the event log and Kafka; `consumers.trainer.recorded` has a file and a store in their place. The steps of a training
(training.py) are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

from consumers.event_log import EventLog
from consumers.event_log.reading import Part
from infra.settings import Settings
from streams.announcements import Announcement, announce, announced
from streams.catalogue import ItemAttributes, decode_item
from streams.events import InvalidEvent
from streams.shared_logs import compacted

Offsets = Mapping[int, tuple[int, int]]
MESSAGES = 10_000


class Moment(Protocol):
    """Events as they are at one moment; `consumers.event_log.Snapshot` is one. ends: offset behind the last, by partition."""

    ends: dict[int, int]

    def days(self) -> list[str]:
        """Event days that have events, oldest first."""

    def n_rows(self, days: tuple[str, str] | None = None) -> int:
        """How many events these days have."""

    def parts(self, columns: Sequence[str], *, days: tuple[str, str] | None = None, offsets: Offsets | None = None) -> Iterator[Part]:
        """Events of these days."""


class Surroundings(Protocol):
    """See above. mark: names the events, where a training that was broken off could meet others; "" where it cannot. where: to be said
    of a release that passed."""

    mark: str
    where: str

    def moment(self) -> AbstractContextManager[Moment]:
        """All events there are now."""

    def items(self) -> Iterable[tuple[str, ItemAttributes]]:
        """What is said of the items that are shown."""

    def served(self) -> Announcement | None:
        """The release that a candidate has to stand up to."""

    def serve(self, version: str) -> None:
        """A release of the store is to be served from now on."""


class LiveSystem:
    """The event log in the trainer's folder, and the topic `models`."""

    mark, where = "", "announced"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def moment(self) -> AbstractContextManager[Moment]:
        """What the log holds now."""
        return EventLog(self._settings.trainer_folder() / "log").snapshot()

    def items(self) -> Iterable[tuple[str, ItemAttributes]]:
        """The topic `items`, as it is now."""
        return asyncio.run(read_items(self._settings)).items()

    def served(self) -> Announcement | None:
        """What is announced."""
        return asyncio.run(announced(self._settings))

    def serve(self, version: str) -> None:
        """Announce it."""
        asyncio.run(announce(self._settings, self._settings.store(), version))


async def read_items(settings: Settings) -> dict[str, ItemAttributes]:
    """Attributes of all items but those that are hidden or deleted; messages that no worker takes are passed over."""
    items: dict[str, ItemAttributes] = {}
    async with aclosing(compacted(settings, settings.topic("items"), MESSAGES)) as reading:
        async for records, whole in reading:
            for record in records:
                try:
                    item, attributes = decode_item(record.key, record.value)
                except InvalidEvent:
                    continue
                items.pop(item, None)
                if attributes is not None and not attributes.hidden:
                    items[item] = attributes
            if whole:
                break
    return items
