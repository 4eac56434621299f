"""A backup is put back only where it is whole and fits: the manifest, the settings, the rows' versions and the log are held against it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.backup import fitting, manifest, taking
from consumers.backup.fitting import fits, goes_on, whole
from consumers.backup.manifest import Manifest, Marks, Topic
from consumers.backup.records import BackupError, File, Record, RecordFile
from consumers.backup.restoring import _Writing
from infra.settings import Settings
from models import item_rows, user_row
from models.user_row import EMPTY_ROW
from streams.erasures import Erased, Erasures
from streams.generations import new_generation

SETTINGS = Settings(partitions=2, prefix="a.")
VERSIONS = {"user": [user_row.FORMAT.version], "item": [item_rows.FORMAT.version]}
LOG = Topic("id", [0, 0], [100, 200])


def backup(**said: Any) -> Manifest:
    meta = msgspec.json.decode(new_generation(SETTINGS).bytes())
    return Manifest(**{
        "code_version": "1.2.3", "began_ms": 1_000_000_000, "ended_ms": 1_000_000_001, "prefix": "a.", "generation": "1", "live": True, "meta": meta,
        "partitions": 2, "settings": manifest.built_by(SETTINGS), "offsets": [50, 60], "item_offsets": [5, 6], "row_versions": VERSIONS,
        "marks": Marks([None, None], [None, None], [None, None], None), "learned": "", "topics": {name: LOG for name in taking.READ}, "erasure_key": "k",
        "release": "", "files": {}, **said})


def tell(_: taking.Progress) -> None:
    """Nobody looks."""


def folder_of(path: Path, **said: Any) -> Path:
    path.mkdir()
    with RecordFile(path / manifest.USERS) as file:
        file.add([Record(b"{0}:u:1", b"", b"row")])
        manifest.write(path, backup(files={manifest.USERS: file.close()}, **said))
    return path


def test_a_whole_one_is_taken(tmp_path: Path) -> None:
    assert whole(folder_of(tmp_path / "one"), tell).offsets == [50, 60]


@pytest.mark.parametrize(("harm", "said"), [
    (lambda folder: (folder / "manifest.json").unlink(), "is no backup"),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "is damaged"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "is damaged"),
    (lambda folder: (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("50", "40")), "its checksum is another"),
    (lambda folder: (folder / "users").unlink(), "missing"),
    (lambda folder: (folder / "users").write_bytes(b""), "0 bytes"),
    (lambda folder: (folder / "users").write_bytes(bytes((folder / "users").stat().st_size)), "its checksum is"),
])
def test_a_damaged_one_is_refused(tmp_path: Path, harm: Any, said: str) -> None:
    folder = folder_of(tmp_path / "one")
    harm(folder)
    with pytest.raises(BackupError, match=said):
        whole(folder, tell)


def another(value: Any) -> Any:
    """A value of the same type, or the same with one value within it changed."""
    if isinstance(value, bool) or value is None:
        return not value if value is not None else "x"
    if isinstance(value, (int, str)):
        return value + type(value)(1)
    if isinstance(value, list):
        return [another(value[0]), *value[1:]]
    first = next(iter(value))
    return {**value, first: another(value[first])}


def test_every_number_of_the_manifest_is_sealed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "one")
    said = json.loads((folder / "manifest.json").read_text())
    for name in said.keys() - {"checksum", "format"}:
        (folder / "manifest.json").write_text(json.dumps({**said, name: another(said[name])}))
        with pytest.raises(BackupError, match="its checksum is another"):
            manifest.read(folder)
    (folder / "manifest.json").write_text(json.dumps({**said, "format": 2}))
    with pytest.raises(BackupError, match="has format 2, this version of streamrec knows 1: upgrade it"):
        manifest.read(folder)


@pytest.mark.parametrize(("settings", "said", "refused"), [
    ({"prefix": "b."}, {}, "is of prefix 'a.'"),
    ({"generation": "trial"}, {}, "is of generation 1, the settings name trial"),
    ({"partitions": 4}, {}, "partitions=2, the settings say 4: set STREAMREC_PARTITIONS=2"),
    ({"popularity_half_life_s": 7}, {}, "popularity_half_life_s=.* the settings say 7"),
    ({}, {"row_versions": {"user": [1, user_row.FORMAT.version + 1], "item": []}}, f"user rows of version {user_row.FORMAT.version + 1}, .*1.2.3 took it.*upgrade it"),
    ({}, {"files": {"topic-erasures": File(10, 1, "")}}, "erased under another key than ours .its mark is k,"),
    ({}, {"row_versions": {"user": [], "item": [item_rows.FORMAT.version - 1]}}, "item rows of version .* restore with the version that took it"),
])
def test_other_settings_and_other_rows_are_refused(settings: dict[str, Any], said: dict[str, Any], refused: str) -> None:
    with pytest.raises(BackupError, match=refused):
        fits(Settings(**{"partitions": 2, "prefix": "a.", **settings}), backup(**said))


def test_it_fits_where_it_came_from_with_settings_of_its_own() -> None:
    meta = msgspec.json.decode(msgspec.structs.replace(new_generation(SETTINGS), own={"list_size": 7}).bytes())
    assert fits(SETTINGS, backup(meta=meta)).list_size == 7


@pytest.mark.parametrize(("found", "refused"), [
    (None, "there is no topic events"),
    (Topic("id", [0], [100]), "has 1 partitions, the backup's had 2"),
    (Topic("another", [0, 0], [100, 200]), "is another one than when the backup was taken .its id was id, now it is another"),
    (Topic("id", [0, 61], [100, 200]), "partition 1: the backup goes on at offset 60, but the log begins at 61: Kafka's retention has removed 1 messages"),
    (Topic("id", [0, 0], [49, 200]), "partition 0: the backup goes on at offset 50, but the log ends at 49"),
    (Topic("", [0, 0], [99, 200]), "is another one"),  # brokers that tell no ids: it ended at 100
])
def test_another_log_and_one_with_a_hole_are_refused(found: Topic | None, refused: str) -> None:
    with pytest.raises(BackupError, match=refused):
        goes_on("events", found, LOG, [50, 60])


def test_a_log_that_goes_on_is_taken_also_from_files() -> None:
    assert goes_on("events", Topic("id", [50, 60], [150, 260]), LOG, [50, 60]) == []
    assert goes_on("events", Topic("", [0, 0], [100, 200]), LOG, [50, 60]) == []
    # a partition from which nothing was absorbed, whose beginning was gone even then
    assert goes_on("events", Topic("id", [0, 30], [100, 200]), Topic("id", [0, 30], [100, 200]), [50, 0]) == []
    dropped = Topic("id", [0, 90], [100, 200])
    assert goes_on("events", dropped, LOG, [50, 60], lambda p: (10, 95)) == [
        "events partition 1: workers read offsets 60 to 89, which Kafka has dropped, from the event log"]
    for held in ((61, 95), (10, 89)):
        with pytest.raises(BackupError, match=f"the event log holds offsets {held[0]} to {held[1] - 1}.*or take a younger"):
            goes_on("events", dropped, LOG, [50, 60], lambda p, held=held: held, fitting.FROM_FILES)


def test_who_was_erased_since_is_left_out_and_nobody_else(tmp_path: Path) -> None:
    writing = _Writing(None, None, SETTINGS, tmp_path, tell)  # type: ignore[arg-type]
    taken = backup()

    def row(as_of: int) -> bytes:
        data = EMPTY_ROW.copy()
        data["as_of"] = as_of
        return bytes(data.tobytes())

    def kept(user: str, as_of: int, *, partition: int, offset: int, appended_ms: int) -> bool:
        writing._erasures = Erasures()
        told = Erasures()
        told.add(partition, Erased(user, offset, appended_ms))
        writing._erasures.hear(*told.to_tell(user), 0)  # type: ignore[misc]
        return bool(writing._without_erased([Record(f"{{0}}:u:{user}".encode(), b"", row(as_of))], taken))

    later = taken.began_ms + 1
    assert not kept("käthe", 49, partition=0, offset=70, appended_ms=later)
    assert not kept("a}:u:b", 49, partition=0, offset=70, appended_ms=later)
    assert kept("u", 71, partition=0, offset=70, appended_ms=later), "he has come back"
    assert kept("u", 30, partition=0, offset=49, appended_ms=later), "places of a topic of before mean nothing"
    assert kept("u", 30, partition=0, offset=70, appended_ms=0), "it was there when the backup was taken: workers meet it again"


@pytest.mark.parametrize("there", ["file", "folder"])
def test_no_older_one_is_written_over(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "one"
    if there == "file":
        folder.write_text("mine")
    else:
        folder_of(folder)
    with pytest.raises(BackupError, match="is there already"):
        asyncio.run(taking.take(SETTINGS, folder, None, tell))


def test_one_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(settings: Settings, folder: Path, *_: Any) -> Manifest:
        (folder / "users").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(taking, "_copy", full)
    (tmp_path / ".one.partial").mkdir()
    (tmp_path / ".one.partial" / "left").write_text("by one that was killed")
    with pytest.raises(BackupError, match="cannot be written: No space left on device; nothing of it is left"):
        asyncio.run(taking.take(SETTINGS, tmp_path / "one", None, tell))
    assert [path.name for path in tmp_path.iterdir()] == [".backup.lock"]


def test_two_at_once_from_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def second(settings: Settings, folder: Path, *_: Any) -> Manifest:
        (folder / "users").write_text("of the first")
        monkeypatch.chdir(tmp_path.parent)
        with pytest.raises(BackupError, match="a backup is being written into"):
            await taking.take(SETTINGS, tmp_path / "one", None, tell)
        assert (folder / "users").read_text() == "of the first"
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(taking, "_copy", second)
    with pytest.raises(BackupError, match="No space left"):
        asyncio.run(taking.take(SETTINGS, Path("one"), None, tell))


def test_a_file_that_went_away_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def robbed(settings: Settings, folder: Path, *_: Any) -> Manifest:
        with RecordFile(folder / manifest.USERS) as file:
            file.add([Record(b"{0}:u:1", b"", b"row")])
            made = backup(files={manifest.USERS: file.close()})
        (folder / manifest.USERS).unlink()
        return made

    monkeypatch.setattr(taking, "_copy", robbed)
    with pytest.raises(BackupError, match="users of the backup went away"):
        asyncio.run(taking.take(SETTINGS, tmp_path / "one", None, tell))
    assert not (tmp_path / "one").exists()


def test_a_link_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "one").symlink_to(tmp_path / "real")
    with pytest.raises(BackupError, match="name a folder within it"):
        asyncio.run(taking.take(SETTINGS, tmp_path / "one", None, tell))


def test_an_event_log_that_nobody_needs_is_not_opened() -> None:
    def never(_: int) -> tuple[int, int]:
        raise AssertionError("it is not needed")

    assert goes_on("events", LOG, LOG, [50, 60], never) == []


def test_an_empty_log_behind_the_place_is_said_and_not_refused() -> None:
    (note,) = goes_on("events", Topic("id", [51, 0], [51, 200]), LOG, [50, 60])
    assert "goes on at offset 50, Kafka holds nothing before 51" in note
    with pytest.raises(BackupError, match="has removed 1 messages"):
        goes_on("events", Topic("id", [51, 0], [52, 200]), LOG, [50, 60])
