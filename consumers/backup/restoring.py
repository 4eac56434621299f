"""A backup is put back: verified whole, refused where it does not fit, and then written so that no worker builds on half of it.

`meta` comes first, with a mark that no worker passes (`streams.generations`); marks of progress come last, all at once, in the one
transaction that takes the mark away. Killed anywhere before that, it can be given again: what the killed one has written is removed first.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import redis.exceptions
from aiokafka.errors import KafkaError

from consumers.backup import manifest as files
from consumers.backup.fitting import fits, log_goes_on, other_topics, whole
from consumers.backup.manifest import Manifest
from consumers.backup.records import BackupError, Record, read
from consumers.backup.taking import ROWS, Progress, Standing, Tell, topic_file
from consumers.backup.topics import look, put_back
from consumers.erasing import read_erasures
from consumers.redis import connected
from consumers.replay.shadows import leased, remove
from infra.settings import Settings
from infra.topics import ensure_topics
from models import user_row
from models.release import BadRelease, location, versions
from models.release import read as read_release
from models.release import write as write_release
from models.row_formats import read as read_rows
from streams.announcements import KEY as SERVED
from streams.announcements import announce
from streams.erasures import SLACK_MS, Erasures
from streams.generations import Generation, live_generation, read_meta
from streams.keys import Keys, literal
from streams.row_versions import RowVersions, read_versions
from streams.shared_logs import LogMissing

SCAN_COUNT = 2_000


@dataclass
class Restored:
    """What was put back; `notes`: what else is to be known. behind: events that the workers will read first."""

    generation: str
    users: int = 0
    items: int = 0
    erased: int = 0
    behind: int = 0
    notes: list[str] = field(default_factory=list)


async def restore(settings: Settings, folder: Path, tell: Tell, *, dry_run: bool = False) -> Restored:
    """Put a backup back; dry_run: all checks, and nothing is changed. Raises `BackupError`, `Busy`."""
    backup = await asyncio.to_thread(whole, folder, tell)
    of_it = fits(settings, backup)
    notes = await log_goes_on(of_it, backup)
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        is_live = live == backup.generation or live is None and backup.live
        keys = Keys(settings.prefix, backup.generation, is_live=is_live)
        if not is_live:
            notes.append(f"{'no generation' if live is None else f'generation {live}'} is live; {backup.generation} is put beside it, as a shadow (docs/replay.md)")
        ends = (await look(of_it, ["events"]))["events"]
        assert ends is not None  # just seen
        out = Restored(backup.generation, backup.files[files.USERS].records, backup.files[files.ITEMS].records,
                       behind=sum(ends.ends) - sum(backup.offsets), notes=notes)
        with contextlib.suppress(LogMissing):  # one that is gone is made anew below
            await read_erasures(of_it, Erasures(of_it.erasure_key))  # under another key than ours: nothing has been changed yet
        if dry_run:
            await _empty(client, keys)
            return out
        async with leased(client, keys):
            standing = await Standing.now(client, keys)
            meta = await _begin(client, keys, backup)
            out.notes += await _kafka(of_it, backup, folder)
            writing = _Writing(client, keys, of_it, folder, tell)
            await writing.all(backup, out)
            # readers have seen what lies there: nothing older is published over it
            seen = [end - 1 for end in ends.ends] if await _has_lists(client, keys) else [-1] * backup.partitions
            await standing.check(client, keys)
            await _finish(client, keys, backup, meta, seen)
    return out


async def _empty(client: Any, keys: Keys) -> bytes | None:
    """`meta`, where a restore that was killed has left it, or None; raises `BackupError` where there is state."""
    live = await live_generation(client, keys.prefix)
    value: bytes | None = await client.get(keys.meta)
    if value is not None and read_meta(value, keys.generation).restoring:
        return value
    n = 0
    async for name in client.scan_iter(match=literal(keys.everything) + "*", count=SCAN_COUNT):
        n += name != keys.lease.encode()
    if n:
        how = (f"stop all workers, then `redis-cli --scan --pattern '{keys.everything}*' | xargs -n 500 redis-cli UNLINK`" if live in (None, keys.generation)
               else f"`streamrec shadows drop {keys.generation}`")
        raise BackupError(f"there is state of generation {keys.generation} already, {n:,} keys, and nothing is put over it. If it is what was lost or damaged,"
                          f" remove it: {how}")
    return None


async def _begin(client: Any, keys: Keys, backup: Manifest) -> Generation:
    """Put the mark, and remove what a restore that was killed has left behind its own."""
    meta = msgspec.convert(backup.meta, Generation)
    found = await _empty(client, keys)
    marked = msgspec.structs.replace(meta, restoring=backup.id).bytes()
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(keys.meta, keys.live)
        live = await pipe.get(keys.live)
        if await pipe.get(keys.meta) != found or live not in ((None, keys.generation.encode()) if keys.is_live else (live,)):
            raise BackupError(f"a worker has begun generation {keys.generation} just now: stop all workers, then give the command again")
        pipe.multi()
        pipe.set(keys.meta, marked)
        if keys.is_live:
            pipe.set(keys.live, keys.generation)
        try:
            await pipe.execute()
        except redis.exceptions.WatchError:
            raise BackupError(f"a worker has begun generation {keys.generation} just now: stop all workers, then give the command again") from None
    await remove(client, keys, keep={keys.meta.encode(), keys.lease.encode()})
    return meta


async def _kafka(settings: Settings, backup: Manifest, folder: Path) -> list[str]:
    """Topics that were lost say again what they said; those that are there know more than the backup. Then the release that was served."""
    other = other_topics(await look(settings, files.TOPICS), backup)
    await ensure_topics(settings)
    notes = []
    for name in files.TOPICS:
        if name in other:
            said = {record.key: record.value for records in read(folder / topic_file(name)) for record in records}
            n = await put_back(settings, name, {key: value for key, value in said.items() if not (name == "models" and key == SERVED)})
            notes.append(f"topic {settings.topic(name)} was another one: {n:,} messages of the backup were sent again")
    if backup.release:
        store = settings.store()
        try:
            if backup.release not in await asyncio.to_thread(versions, store):
                await asyncio.to_thread(lambda: write_release(store, read_release(str(folder / files.RELEASES), backup.release)))
                notes.append(f"release {backup.release} was put into {location(store)}")
            if "models" in other:
                await announce(settings, store, backup.release)
        except (BadRelease, OSError, KafkaError) as error:  # lists do without, rows cannot
            notes.append(f"release {backup.release} is not served: {error}; `streamrec models list`")
    return notes


async def _has_lists(client: Any, keys: Keys) -> bool:
    async for _ in client.scan_iter(match=literal(keys.list_of("")) + "*", count=SCAN_COUNT):
        return True
    return False


async def _finish(client: Any, keys: Keys, backup: Manifest, meta: Generation, seen: list[int]) -> None:
    """All marks, and the mark of the restore away: from here on workers build on it."""
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(keys.meta)
        if read_meta(await pipe.get(keys.meta) or b"{}", keys.generation).restoring != backup.id:
            raise BackupError(f"generation {keys.generation} was taken from us: somebody else restores or removes it")
        pipe.multi()
        for p in range(backup.partitions):
            if (mark := backup.marks.checkpoints[p]) is not None:
                pipe.set(keys.checkpoint(p), mark)
            if (mark := backup.marks.items[p]) is not None:
                pipe.set(keys.items_checkpoint(p), mark)
            pipe.set(keys.shown(p), max(int(backup.marks.shown[p] or -1), seen[p]))
            pipe.set(keys.relist(p), 1)  # lists are made anew
        if backup.learned:
            pipe.set(keys.learned_checkpoint, backup.learned)
        noted = read_versions(None if backup.marks.rows is None else backup.marks.rows.encode())
        # of a worker of a newer version that began while the backup was taken there may be rows, but not yet the note
        pipe.set(keys.rows, msgspec.json.encode(RowVersions(**{
            kind: max([getattr(noted, kind), *backup.row_versions.get(kind, [])]) for kind in RowVersions.__struct_fields__})))
        pipe.set(keys.meta, meta.bytes())
        try:
            await pipe.execute()
        except redis.exceptions.WatchError:
            raise BackupError(f"generation {keys.generation} was taken from us: somebody else restores or removes it") from None


class _Writing:
    """Rows on their way back."""

    def __init__(self, client: Any, keys: Keys, settings: Settings, folder: Path, tell: Tell) -> None:
        self._client, self._keys, self._settings, self._folder, self._tell = client, keys, settings, folder, tell
        self._erasures = Erasures(settings.erasure_key)

    async def all(self, backup: Manifest, out: Restored) -> None:
        """Everything but the marks. Who was erased since the backup was taken stays away."""
        await read_erasures(self._settings, self._erasures)
        total, done = sum(backup.files[name].records for name in (files.USERS, files.ITEMS, files.LEARNED)), 0
        for name in (files.USERS, files.ITEMS, files.LEARNED):
            for records in read(self._folder / name):
                kept = self._without_erased(records, backup) if name == files.USERS else records
                out.erased += len(records) - len(kept)
                await self._write(kept)
                done += len(records)
                self._tell(Progress(done, total, "rows"))
        out.users -= out.erased

    async def _write(self, records: list[Record]) -> None:
        ttl = self._settings.retention_s
        for start in range(0, len(records), ROWS):
            async with self._client.pipeline(transaction=False) as pipe:
                for key, field_, value in records[start : start + ROWS]:
                    name = self._keys.everything.encode() + key
                    if field_:
                        pipe.hset(name, field_, value)
                    else:
                        pipe.set(name, value, ex=ttl if b"}:u:" in key else None)
                await pipe.execute()

    def _without_erased(self, records: list[Record], backup: Manifest) -> list[Record]:
        """Rows of users whose erase event lies behind what they know, and was not there yet when the backup was taken. (Where it was,
        workers meet it again: the backup goes on before it.)"""
        if not self._erasures.users or not records:
            return records
        as_of = read_rows([record.value or b"" for record in records], user_row.FORMAT)["as_of"].tolist()
        return [record for record, last in zip(records, as_of, strict=True) if not self._is_erased(record.key, last, backup)]

    def _is_erased(self, key: bytes, as_of: int, backup: Manifest) -> bool:
        start, user = key.split(b"}:u:", 1)
        found = self._erasures.of(user.decode())
        return (found is not None and found.partition == int(start[1:]) and found.offset > as_of
                and found.offset >= backup.offsets[found.partition] and found.appended_at >= backup.began_ms - SLACK_MS)
