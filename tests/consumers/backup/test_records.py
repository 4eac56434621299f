"""Files of records come back as they were written, and no byte of them changes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.backup import records
from consumers.backup.records import BackupError, File, Record, RecordFile, read, verify

RECORDS = st.lists(st.builds(Record, st.binary(max_size=9), st.binary(max_size=5), st.none() | st.binary(max_size=70)), max_size=30)


def written(path: Path, parts: list[list[Record]]) -> File:
    with RecordFile(path) as file:
        for part in parts:
            file.add(part)
        return file.close()


@given(st.lists(RECORDS, max_size=4), st.integers(1, 200))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, parts: list[list[Record]], block: int) -> None:
    path = tmp_path_factory.mktemp("records") / "users"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block)
        said = written(path, parts)
    verify(path, said)
    assert [record for some in read(path) for record in some] == [record for part in parts for record in part]
    assert said.records == sum(map(len, parts)) and said.bytes == path.stat().st_size


def test_no_damage_is_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK_BYTES", 300)
    path = tmp_path / "users"
    said = written(path, [[Record(b"{0}:u:%d" % n, b"", bytes(100)) for n in range(20)]])
    whole = path.read_bytes()
    damaged = [whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1 :] for k in range(len(whole))] + [whole[:-1], whole + b"x", b""]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(BackupError, match="damaged"):
            verify(path, said)
        try:  # and if it had gone bad only since: no other rows than those that were written come out of it
            found = [record for some in read(path) for record in some]
        except BackupError:
            continue
        assert all(record.key.startswith(b"{0}:u:") and record.value == bytes(100) for record in found)
    path.unlink()
    with pytest.raises(BackupError, match="missing"):
        verify(path, said)
