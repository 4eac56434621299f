"""A backup is taken while workers go on: the low-water marks first, all at one moment, then the rows, which may know more.

That needs no pause, because a row knows what it has absorbed: what lies between the marks and a row is read again when the copy is put
back, and changes nothing twice - as after a crash between rows and checkpoint, only that hours may lie between the two. What must not
happen meanwhile is that Redis loses something: then a row could know *less* than the marks say. A lease that is still ours, and a
server that is still the same, prove that it has not.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

from consumers.backup import manifest as files
from consumers.backup.manifest import Manifest, Marks, Topic
from consumers.backup.records import BackupError, File, Record, RecordFile
from consumers.backup.topics import look, read_whole
from consumers.redis import connected
from consumers.replay.shadows import leased
from infra.only_one import only_one
from infra.settings import Settings
from models import item_rows, user_row
from models.durable import sync_folder
from models.release import BadRelease
from models.release import read as read_release
from models.release import write as write_release
from models.row_formats import RowFormat, version_of
from streams.announcements import KEY as SERVED
from streams.announcements import decode as decode_announcement
from streams.erasures import Erasures
from streams.generations import Generation, generation_of, live_generation, refuse_newer, refuse_unfinished
from streams.keys import Keys

SCAN_COUNT = 2_000
#: Rows in one request: what Redis needs for it stays far below what a list may wait.
ROWS = 250
#: Workers write what was learned beside what counts, and then name that; so a reader that was too slow begins again.
ATTEMPTS = 20
#: The topics that a generation's state was made of.
READ = ("events", "interactions", "lessons", *files.TOPICS)


class Progress(NamedTuple):
    """Keys of Redis looked at, or records put back; of how many; what they are."""

    done: int
    total: int
    doing: str


Tell = Callable[[Progress], None]


class Standing(NamedTuple):
    """What must be the same at the end: which server it is, and the command's own lease."""

    server: bytes
    lease: bytes

    @classmethod
    async def now(cls, client: Any, keys: Keys) -> Standing:
        """As it is."""
        server = await client.info("server")
        return cls(str(server.get("run_id", "")).encode(), await client.get(keys.lease) or b"")

    async def check(self, client: Any, keys: Keys) -> None:
        """Raises `BackupError` where Redis was restarted or emptied, or another server answers."""
        if await Standing.now(client, keys) != self:
            raise BackupError("Redis was restarted or emptied meanwhile, so what was done does not fit together; give the command again")


async def take(settings: Settings, folder: Path, generation: str | None, tell: Tell, *, with_release: bool = True) -> Manifest:
    """Copy a generation (None: the live one) into a folder, which is there whole or not at all. Raises `BackupError`."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is there already; a backup begins with a folder that is not, so that no older one is lost")
    if folder.is_symlink() or os.path.ismount(folder):
        raise BackupError(f"{folder} is a link or the root of a volume, which a finished backup cannot take the place of; name a folder within it")
    partial = folder.with_name(f".{folder.name}.partial")
    # where everybody meets it who writes there, in whatever folder or container the command was called
    with only_one(folder.parent / ".backup.lock", lambda who: BackupError(f"a backup is being written into {folder.parent} by {who}; one at a time")):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            made = await _copy(settings, partial, generation, tell, with_release)
            files.write(partial, made)
            if gone := [name for name, file in made.files.items() if not (partial / name).is_file() or (partial / name).stat().st_size != file.bytes]:
                raise BackupError(f"{', '.join(gone)} of the backup went away while it was written: something else works in {partial}")
            sync_folder(partial)
            os.rename(partial, folder)
            sync_folder(folder.parent)
            return made
        except OSError as error:
            raise BackupError(f"{folder} cannot be written: {error.strerror or error}; nothing of it is left") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


async def _copy(settings: Settings, folder: Path, generation: str | None, tell: Tell, with_release: bool) -> Manifest:
    began_ms = time.time_ns() // 1_000_000
    async with connected(settings) as client:
        live = await live_generation(client, settings.prefix)
        name = generation or live
        if name is None:
            raise BackupError(f"there is nothing to copy: no worker has run yet under the prefix {settings.prefix!r}, and Redis knows of no generation")
        keys = Keys(settings.prefix, name, is_live=name == live)
        async with leased(client, keys):
            meta = await generation_of(client, settings.prefix, name)
            of_it = settings.with_own(name, meta.own)
            _check(of_it, meta, name)
            standing = await Standing.now(client, keys)
            marks = await _marks(client, keys, of_it.partitions)  # before all that follows
            refuse_newer(None if marks.rows is None else marks.rows.encode(), name)
            topics = await _topics(of_it)
            copied = _Copied(client, keys, folder, tell)
            await copied.users()
            await copied.items(of_it.partitions)
            learned = await copied.learned()
            said = {topic: await read_whole(of_it, topic) for topic in files.TOPICS}
            for topic, messages in said.items():
                await copied.topic(topic, messages)
            release = await asyncio.to_thread(_release, said["models"].get(SERVED), folder) if with_release else ""
            await standing.check(client, keys)
            if await generation_of(client, settings.prefix, name) != meta or await live_generation(client, settings.prefix) != live:
                raise BackupError(f"generation {name} was changed meanwhile (a promotion, a rollback, a replay); give the command again")
            for topic, now in (await _topics(of_it)).items():
                if now.id != topics[topic].id:
                    raise BackupError(f"topic {of_it.topic(topic)} was made anew meanwhile; see docs/operations.md")
    return Manifest(
        code_version=importlib.metadata.version("streamrec"), began_ms=began_ms, ended_ms=time.time_ns() // 1_000_000, prefix=settings.prefix,
        generation=name, live=keys.is_live, meta=msgspec.json.decode(meta.bytes()), partitions=of_it.partitions, settings=files.built_by(of_it),
        offsets=[offset if offset is not None else start for offset, start in
                 zip(map(_offset, marks.checkpoints), meta.start or [0] * of_it.partitions, strict=True)],
        item_offsets=[_offset(mark) or 0 for mark in marks.items], row_versions={kind: sorted(found) for kind, found in copied.versions.items()},
        marks=marks, learned=learned, topics=topics, erasure_key=Erasures(settings.erasure_key).key, release=release, files=copied.files)


def _check(settings: Settings, meta: Generation, name: str) -> None:
    refuse_unfinished(meta, name)
    for setting, ours in files.built_by(settings).items():
        said = getattr(meta, setting)
        if said is not None and said != ours:
            raise BackupError(f"generation {name} was built with {setting}={said}, the settings say {ours}: set STREAMREC_{setting.upper()}={said}")


def _offset(mark: str | None) -> int | None:
    return None if mark is None else int(msgspec.json.decode(mark)["offset"])


async def _marks(client: Any, keys: Keys, n: int) -> Marks:
    """By one command, so that all are of one moment: what is moved between partitions must not fall between two."""
    kinds = (keys.checkpoint, keys.items_checkpoint, keys.shown)
    *values, rows = await client.mget([*(kind(p) for kind in kinds for p in range(n)), keys.rows])
    texts = [None if value is None else value.decode() for value in values]
    return Marks(texts[:n], texts[n : 2 * n], texts[2 * n :], None if rows is None else rows.decode())


async def _topics(settings: Settings) -> dict[str, Topic]:
    found = {}
    for name, topic in (await look(settings, READ)).items():
        if topic is None:
            raise BackupError(f"there is no topic {settings.topic(name)}; a worker that is started creates what is missing")
        found[name] = topic
    return found


def _release(announced: bytes | None, folder: Path) -> str:
    """Put what is served into a store within the backup; its version, "" where none is. `read` verifies all of it."""
    try:
        found = decode_announcement(announced)
        return "" if found is None else write_release(str(folder / files.RELEASES), read_release(found.store, found.version))
    except (BadRelease, OSError) as error:
        raise BackupError(f"the release that is served cannot be copied: {error}; promote another (`streamrec models list`), or give --no-release") from error


class _Copied:
    """The files of a backup, as they are made."""

    def __init__(self, client: Any, keys: Keys, folder: Path, tell: Tell) -> None:
        self._client, self._keys, self._folder, self._tell = client, keys, folder, tell
        self.files: dict[str, File] = {}
        self.versions: dict[str, set[int]] = {"user": set(), "item": set()}

    async def _write(self, file: RecordFile, records: Iterable[Record]) -> None:
        await asyncio.to_thread(file.add, records)  # packing takes a core, which the loop (the lease) must not wait for

    async def users(self) -> None:
        """All user rows. What comes and goes while the keys are walked over is met again in the log."""
        everything, n_seen = self._keys.everything.encode(), 0
        is_row = re.compile(re.escape(everything) + rb"\{\d+\}:u:").match
        total, cursor = await self._client.dbsize(), None
        with RecordFile(self._folder / files.USERS) as file:
            while cursor != 0:
                cursor, names = await self._client.scan(cursor or 0, count=SCAN_COUNT)
                n_seen += len(names)
                names = [name for name in names if is_row(name)]
                for start in range(0, len(names), ROWS):
                    some = names[start : start + ROWS]
                    rows = [(name, row) for name, row in zip(some, await self._client.mget(some), strict=True) if row is not None]
                    self._know("user", user_row.FORMAT, [row for _, row in rows])
                    await self._write(file, [Record(name[len(everything) :], b"", row) for name, row in rows])
                self._tell(Progress(n_seen, max(total, n_seen), "keys"))
            self.files[files.USERS] = await asyncio.to_thread(file.close)

    async def items(self, n: int) -> None:
        """All item rows."""
        with RecordFile(self._folder / files.ITEMS) as file:
            for p in range(n):
                name, cursor = self._keys.items(p), None
                suffix = name[len(self._keys.everything) :].encode()
                while cursor != 0:
                    cursor, found = await self._client.hscan(name, cursor or 0, count=ROWS)
                    self._know("item", item_rows.FORMAT, found.values())
                    await self._write(file, [Record(suffix, field, row) for field, row in found.items()])
                self._tell(Progress(p + 1, n, "partitions of items"))
            self.files[files.ITEMS] = await asyncio.to_thread(file.close)

    def _know(self, kind: str, rows: RowFormat, found: Iterable[bytes]) -> None:
        versions = {version_of(row) for row in found}
        if unknown := versions - rows.readable:
            raise BackupError(f"{kind} rows of version {max(unknown)} lie in Redis, this version of streamrec reads"
                              f" {', '.join(map(str, sorted(rows.readable)))}: upgrade it")
        self.versions[kind] |= versions

    async def learned(self) -> str:
        """What was learned, whole and of one moment; its checkpoint, "" where there is none."""
        client, keys = self._client, self._keys
        with RecordFile(self._folder / files.LEARNED) as file:
            value, pieces = b"", []
            for _ in range(ATTEMPTS):
                value = await client.get(keys.learned_checkpoint) or b""
                said = msgspec.json.decode(value or b'{"pieces": 0, "name": "", "checksum": null}')
                names = [keys.learned(said["name"], k) for k in range(said["pieces"])]
                pieces = [await client.get(name) or b"" for name in names]
                if not value or await asyncio.to_thread(xxhash.xxh3_64_intdigest, b"".join(pieces)) == said["checksum"]:
                    break
            else:  # damaged: a worker that starts learns it again from the log, and so will one that starts from the copy
                value, names, pieces = b"", [], []
            await self._write(file, [Record(name[len(keys.everything) :].encode(), b"", piece) for name, piece in zip(names, pieces, strict=True)])
            self.files[files.LEARNED] = await asyncio.to_thread(file.close)
        return value.decode()

    async def topic(self, name: str, messages: dict[bytes, bytes | None]) -> None:
        """What a compacted topic says."""
        with RecordFile(self._folder / topic_file(name)) as file:
            await self._write(file, [Record(key, b"", value) for key, value in messages.items()])
            self.files[topic_file(name)] = await asyncio.to_thread(file.close)


def topic_file(name: str) -> str:
    """Where a compacted topic lies in a backup."""
    return f"topic-{name}"
