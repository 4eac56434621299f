"""Whether a backup is whole, and whether it fits: the settings, this version, and the log that it is to go on from. Nothing is changed here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

from consumers.backup import manifest as files
from consumers.backup.manifest import Manifest, Topic
from consumers.backup.records import BackupError, verify
from consumers.backup.taking import READ, Progress, Tell, topic_file
from consumers.backup.topics import look
from infra.settings import Settings
from models import item_rows, user_row
from models.release import BadRelease
from models.release import read as read_release
from streams.erasures import Erasures

#: Of events only; what workers said of items lies in Kafka alone.
FROM_FILES = " Have workers read them from an event log that holds them (STREAMREC_EVENT_LOG_FOLDER, docs/event_log.md), or"
REBUILD = "take a younger backup, or build new state from what is there (docs/operations.md, Rebuild)"


def whole(folder: Path, tell: Tell) -> Manifest:
    """The manifest, once every byte of every file has been compared with what it says; raises `BackupError`."""
    found = files.read(folder)
    for k, (name, said) in enumerate(found.files.items()):
        verify(folder / name, said)
        tell(Progress(k + 1, len(found.files), "files verified"))
    if found.release:
        try:
            read_release(str(folder / files.RELEASES), found.release)
        except (BadRelease, OSError) as error:
            raise BackupError(f"the release in the backup is damaged: {error}; take another backup") from error
    return found


def fits(settings: Settings, backup: Manifest) -> Settings:
    """The settings of the generation; raises `BackupError` where these are not those that the backup was taken with, or its rows are newer."""
    if settings.prefix != backup.prefix:
        raise BackupError(f"the backup is of prefix {backup.prefix!r}, the settings say {settings.prefix!r}; its log is the one of its prefix")
    if settings.generation not in ("", backup.generation):
        raise BackupError(f"the backup is of generation {backup.generation}, the settings name {settings.generation}")
    own = settings.with_own(backup.generation, backup.meta.get("own", {}))
    for name, ours in files.built_by(own).items():
        if (theirs := backup.settings.get(name)) != ours:
            raise BackupError(f"the backup was built with {name}={theirs}, the settings say {ours}: set STREAMREC_{name.upper()}={theirs}")
    erased = backup.files.get(topic_file("erasures"))
    if erased is not None and erased.records and (ours := Erasures(settings.erasure_key).key) != backup.erasure_key:
        raise BackupError(f"users were erased under another key than ours (its mark is {backup.erasure_key}, that of ours {ours}), so nobody could tell who they"
                          " are; set STREAMREC_ERASURE_KEY to the key that was used")
    for kind, rows in (("user", user_row.FORMAT), ("item", item_rows.FORMAT)):
        if unknown := set(backup.row_versions.get(kind, [])) - rows.readable:
            readable = ", ".join(map(str, sorted(rows.readable)))
            what = "restore with the version that took it" if max(unknown) < rows.version else "upgrade it"
            raise BackupError(f"the backup holds {kind} rows of version {max(unknown)}, this version of streamrec ({backup.code_version} took it) reads"
                              f" {readable}: {what}")
    return own


async def log_goes_on(settings: Settings, backup: Manifest) -> list[str]:
    """Raises `BackupError` unless the logs are those that the backup goes on from, and hold all that came since; returns what else is
    to be known. `settings`: the generation's."""
    there = await look(settings, READ)
    opened = functools.cache(lambda: _event_log(settings, there["events"]))  # only where Kafka has dropped something
    files_of = (lambda p: opened()(p)) if settings.event_log_folder else None
    notes = goes_on(settings.topic("events"), there["events"], backup.topics["events"], backup.offsets, files_of, FROM_FILES)
    notes += goes_on(settings.topic("interactions"), there["interactions"], backup.topics["interactions"], backup.item_offsets)
    if _other(there["lessons"], backup.topics["lessons"]):
        notes.append(f"topic {settings.topic('lessons')} is another than the backup's: workers will learn anew from what is there")
    elif backup.learned and (lessons := there["lessons"]) is not None and (at := json.loads(backup.learned)["offset"]) < lessons.begins[0]:
        notes.append(f"topic {settings.topic('lessons')} begins at offset {lessons.begins[0]}, what was learned goes on from {at}: what the lessons in between"
                     " taught is lost")
    return notes


def other_topics(found: dict[str, Topic | None], backup: Manifest) -> set[str]:
    """Compacted topics that are not those of the backup: what they said is to be said again."""
    return {name for name in files.TOPICS if _other(found[name], backup.topics[name])}


def _other(found: Topic | None, said: Topic) -> bool:
    if found is None:
        return True
    # brokers before 2.8 tell no ids: there an end that has come nearer is all that shows
    return found.id != said.id if found.id and said.id else any(now < then for now, then in zip(found.ends, said.ends, strict=True))


def _event_log(settings: Settings, events: Topic | None) -> Callable[[int], tuple[int, int]]:
    """What lies in the event log from which workers read what Kafka has dropped: first offset and end of a partition."""
    from consumers.event_log.by_offset import open_files

    return open_files(settings.event_log_folder, settings, topic_id=events.id if events else "").range


def goes_on(topic: str, found: Topic | None, said: Topic, offsets: list[int], files_of: Callable[[int], tuple[int, int]] | None = None,
            advice: str = "") -> list[str]:
    """Raises `BackupError` unless a log holds everything from these offsets on; says what of it lies in files (`files_of`: their range by partition)."""
    if found is None:
        raise BackupError(f"there is no topic {topic}: a backup holds what was made of the log, and goes on from the log. Bring the topic back, or begin"
                          " under another prefix and import the history (docs/backup.md)")
    if len(found.ends) != len(offsets):
        raise BackupError(f"topic {topic} has {len(found.ends)} partitions, the backup's had {len(offsets)}")
    if _other(found, said):
        raise BackupError(f"topic {topic} is another one than when the backup was taken (its id was {said.id or 'not told'}, now it is"
                          f" {found.id or 'not told'}): rows and offsets of the backup mean nothing in it; {REBUILD}")
    notes = []
    for p, (offset, begin, began, end) in enumerate(zip(offsets, found.begins, said.begins, found.ends, strict=True)):
        if offset > end:
            raise BackupError(f"{topic} partition {p}: the backup goes on at offset {offset}, but the log ends at {end}: the topic has lost its tail;"
                              f" {REBUILD}")
        if max(offset, began) >= begin:
            continue
        if begin == end:
            notes.append(f"{topic} partition {p}: the backup goes on at offset {offset}, Kafka holds nothing before {begin}, where its log ends: marks of"
                         " transactions, or events that retention has removed, which are then missing")
            continue
        first, last = files_of(p) if files_of is not None else (0, -1)
        if first > max(offset, began) or last < begin:
            where = f"; the event log holds offsets {first} to {last - 1}" if files_of is not None else ""
            raise BackupError(f"{topic} partition {p}: the backup goes on at offset {offset}, but the log begins at {begin}: Kafka's retention has removed"
                              f" {begin - offset:,} messages in between{where}.{advice} {REBUILD}")
        notes.append(f"{topic} partition {p}: workers read offsets {offset} to {begin - 1}, which Kafka has dropped, from the event log")
    return notes
