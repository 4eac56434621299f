"""What a backup says of itself: `manifest.json`, written last, with a checksum of its own. A folder without it is no backup."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from consumers.backup.records import BackupError, File
from infra.settings import Settings
from models.durable import put_bytes

FORMAT = 1
NAME = "manifest.json"
#: Files of records that every backup has; `releases/` is a store (docs/releases.md) with what was served, if anything was.
USERS, ITEMS, LEARNED, RELEASES = "users", "items", "learned", "releases"
#: Compacted topics that are copied, a file each.
TOPICS = ("items", "erasures", "models")


class Topic(msgspec.Struct, frozen=True):
    """A topic as it was when the copy began: its id ("": the broker tells none), where its partitions began and ended."""

    id: str
    begins: list[int]
    ends: list[int]


class Marks(msgspec.Struct, frozen=True):
    """The small keys of a generation, all of one moment, before any row was copied; by partition, None where there is none."""

    checkpoints: list[str | None]
    items: list[str | None]
    shown: list[str | None]
    rows: str | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Times are epoch ms by the clock of the machine that took it.

    offsets: where absorbing goes on, by partition; row_versions, row_bytes: of what lies in `users` and `items`; learned: the checkpoint
    of what was learned ("": nothing was); erasure_key: the mark of the key under which users were erased (not the key).
    """

    id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    code_version: str
    began_ms: int
    ended_ms: int
    prefix: str
    generation: str
    live: bool
    meta: dict[str, Any]
    partitions: int
    settings: dict[str, Any]
    offsets: list[int]
    item_offsets: list[int]
    row_versions: dict[str, list[int]]
    marks: Marks
    learned: str
    topics: dict[str, Topic]
    erasure_key: str
    release: str
    files: dict[str, File]
    format: int = FORMAT


def write(folder: Path, manifest: Manifest) -> None:
    """Make the folder a backup."""
    body = msgspec.json.encode(manifest)
    sealed = {"checksum": xxhash.xxh3_64_hexdigest(body), **msgspec.json.decode(body)}
    put_bytes(folder / NAME, msgspec.json.format(msgspec.json.encode(sealed), indent=1))


def read(folder: Path) -> Manifest:
    """The manifest of a backup; raises `BackupError`."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise BackupError(f"{folder} is no backup: it has no {NAME}, which is written last") from None
    except NotADirectoryError:
        raise BackupError(f"{folder} is no folder, so it is no backup") from None
    try:
        said = msgspec.json.decode(data)
        checksum, version = said.pop("checksum"), said["format"]
        if isinstance(version, int) and version > FORMAT:
            raise BackupError(f"the backup in {folder} has format {version}, this version of streamrec knows {FORMAT}: upgrade it")
        if checksum != xxhash.xxh3_64_hexdigest(msgspec.json.encode(said)):
            raise ValueError("its checksum is another")
        return msgspec.convert(said, Manifest)
    except BackupError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # msgspec's are ValueErrors
        raise BackupError(f"{folder / NAME} is damaged ({error}); take another backup") from None


def built_by(settings: Settings) -> dict[str, Any]:
    """Settings without which the bytes of rows mean something else, or the rows of other users."""
    from streams.generations import BUILT_BY

    return {name: getattr(settings, name) for name in BUILT_BY}
