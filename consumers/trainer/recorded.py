"""A training on a recorded log, without Kafka: the steps are the trainer's own, a file stands for the event log, a store for what is served.

In: a `DataSet` as the backtest reads it from a file. Out: a release in the store, or a candidate with the figures that keep it out. Killed
anywhere, the same call goes on behind the last step; another file begins anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash

from consumers.backtest.log import Log
from consumers.columns import choose_columns, id_text
from consumers.event_log.names import DAY_MS, day_number, day_text
from consumers.event_log.reading import Part
from consumers.event_log.rows import arrow
from consumers.tables import Table
from consumers.trainer.configs import configs
from consumers.trainer.judging import Verdict
from consumers.trainer.learning import Report, TrainerError, check_packages
from consumers.trainer.surroundings import LiveSystem, Offsets
from consumers.trainer.training import Training
from infra.only_one import only_one
from infra.settings import Settings, SettingsError
from models.release import versions
from streams.announcements import Announcement
from streams.catalogue import ItemAttributes
from streams.events import EVENT_TYPES

#: Within the trainer's folder, so that a service beside it keeps its own.
FOLDER = "recorded"
#: Settings that decide which events of a file are learned.
CHOOSING = ("train_window_days", "train_exemplars", "train_text", "weights", "rating_scale")


def train_recorded(settings: Settings, log: Log, *, items: Path | None = None, announce: bool = False,
                   tell: Callable[[Report], None] = lambda _: None) -> tuple[str, Verdict]:
    """One training; version and verdict. items: a file of what is said of items, as `streamrec import --kind items` reads it; announce:
    compare with what running workers serve, and have them serve what passes.

    Raises TooLittle, TrainerError, SettingsError, and what stores (and with `announce` Kafka) raise: then the same call goes on.
    """
    check_packages()
    configs(settings, seed=0)  # a wrong setting is said before anything is done
    settings = dataclasses.replace(settings, train_folder=str(settings.trainer_folder() / FOLDER))
    with _alone(settings.trainer_folder()):
        training = Training(settings, RecordedLog(settings, log, items=items, announce=announce), report=tell)
        if not training.begun:
            training.begin("a recorded log")
        return training.run()


class RecordedLog:
    """`Surroundings` of a file; it is its own `Moment`, in one partition."""

    def __init__(self, settings: Settings, log: Log, *, items: Path | None = None, announce: bool = False) -> None:
        self._settings, self._log, self._items, self._live = settings, log, items, LiveSystem(settings) if announce else None
        self._days = log.times_ms // DAY_MS
        self.ends = {0: len(log)}
        self.where = "announced" if announce else "in the store"
        told = xxhash.xxh3_64("\0".join([*(str(getattr(settings, name)) for name in CHOOSING), *log.user_ids, *log.item_ids]).encode())
        for column in (log.users, log.items, log.times_ms, log.types, log.values):
            told.update(b"-" if column is None else np.ascontiguousarray(column).data)
        self.mark = told.hexdigest()

    @contextmanager
    def moment(self) -> Iterator[RecordedLog]:
        """The whole file."""
        yield self

    def items(self) -> Iterable[tuple[str, ItemAttributes]]:
        """Rows of the file of items; those without an id are passed over. Raises SettingsError where there is none."""
        if self._items is None:
            raise SettingsError(f"train_text is {self._settings.train_text!r}, but nothing is said of items here: name a file of them, --items FILE")
        table = Table(self._items)
        chosen = choose_columns(table.names, {}, "items")
        roles = [role for role in ("item", "title", "category", "properties") if role in chosen]
        for rows in table.read([chosen[role] for role in roles]):
            for row in rows:
                said = dict(zip(roles, row, strict=True)) if not isinstance(row, str) else {}
                if item := id_text(said.get("item")):
                    title, category, properties = (said.get(role) for role in ("title", "category", "properties"))
                    yield item, ItemAttributes(title=id_text(title) or None, category=id_text(category) or None,
                                               properties=properties if isinstance(properties, dict) else None)

    def served(self) -> Announcement | None:
        """What is announced where it is to be; else the newest release of the store."""
        if self._live is not None:
            return self._live.served()
        there = versions(self._settings.store())
        return Announcement(there[-1], self._settings.store()) if there else None

    def serve(self, version: str) -> None:
        """Without an announcement it is enough that it lies in the store."""
        if self._live is not None:
            self._live.serve(version)

    def days(self) -> list[str]:
        """See `Moment`."""
        return [day_text(day) for day in np.unique(self._days).tolist()]

    def n_rows(self, days: tuple[str, str] | None = None) -> int:
        """See `Moment`."""
        first, end = self._of(days)
        return end - first

    def parts(self, columns: Sequence[str], *, days: tuple[str, str] | None = None, offsets: Offsets | None = None) -> Iterator[Part]:
        """All of these days as one part; offsets count events in order of time."""
        pa, log, (first, end) = arrow(), self._log, self._of(days)
        if offsets is not None:
            first, end = max(first, offsets[0][0]), min(end, offsets[0][1])
        if first >= end:
            return
        table = pa.table({
            "user_id": pa.DictionaryArray.from_arrays(log.users[first:end], log.user_ids),
            "item_id": pa.DictionaryArray.from_arrays(log.items[first:end], log.item_ids),
            "event_type": pa.DictionaryArray.from_arrays(log.types[first:end].astype(np.int32), list(EVENT_TYPES)),
            "time_ms": log.times_ms[first:end],
            "value": np.full(end - first, np.nan) if log.values is None else log.values[first:end],
        })
        yield Part(0, day_text(int(self._days[first])), table.select(list(columns)))

    def _of(self, days: tuple[str, str] | None) -> tuple[int, int]:
        """From where to where these days lie: a log is in order of time."""
        if days is None:
            return 0, len(self._log)
        first, end = np.searchsorted(self._days, [day_number(days[0]), day_number(days[1]) + 1])
        return int(first), int(end)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two at once would take each other's steps."""
    with only_one(folder / "lock", lambda who: TrainerError(
            f"another training on a recorded log is at work in {folder} ({who}); wait for it, or give this one a folder of its own: "
            "--set train_folder=...")):
        yield
