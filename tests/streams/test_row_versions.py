"""What the key `rows` says: a worker that knows only older rows refuses, one that knows newer ones says so, and nothing is ever lowered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from infra.settings import Settings
from models import item_rows, user_row
from models.item_rows import ITEM_ROW
from models.row_formats import Older
from models.user_row import EMPTY_ROW, USER_ROW
from streams.generations import Generation, RefusedRedis, new_generation, read_meta, refuse_newer, refuse_unfinished
from streams.items import ItemTable
from streams.row_versions import merged, read_versions
from streams.user_table import UserTable

OURS = {"user": user_row.FORMAT.version, "item": item_rows.FORMAT.version}


def said(**versions: int) -> bytes:
    return msgspec.json.encode(versions)


@pytest.mark.parametrize("value", [None, b"{}", said(**OURS), said(user=1), said(user=OURS["user"], item=1, more=7)])
def test_what_is_older_or_ours_is_taken_and_noted_as_ours(value: bytes | None) -> None:
    assert msgspec.json.decode(merged(refuse_newer(value, "1"))) == OURS


@pytest.mark.parametrize("kind", ["user", "item"])
def test_what_is_newer_is_refused_and_never_lowered(kind: str) -> None:
    value = said(**{**OURS, kind: OURS[kind] + 1})
    with pytest.raises(RefusedRedis, match=f"newer version .* generation 1: {kind} rows of version {OURS[kind] + 1}, this worker writes {OURS[kind]}. Upgrade it"):
        refuse_newer(value, "1")
    assert msgspec.json.decode(merged(read_versions(value))) == {**OURS, kind: OURS[kind] + 1}


@pytest.mark.parametrize("value", [b"", b"junk", b"[]", b'{"user": "three"}', b"\xff"])
def test_what_no_worker_writes_is_refused(value: bytes) -> None:
    with pytest.raises(RefusedRedis, match="something else writes to our keys"):
        refuse_newer(value, "1")


def test_what_is_being_restored_is_refused_until_it_is_whole() -> None:
    meta = new_generation(Settings())
    half = msgspec.structs.replace(meta, restoring="abc")
    refuse_unfinished(read_meta(meta.bytes(), "1"), "1")
    with pytest.raises(RefusedRedis, match="generation 1 is being restored from a backup"):
        refuse_unfinished(read_meta(half.bytes(), "1"), "1")
    with pytest.raises(RefusedRedis, match="there is no generation 1"):
        refuse_unfinished(msgspec.structs.replace(meta, dropped=True), "1")
    assert "restoring" not in msgspec.json.decode(meta.bytes()) and Generation().restoring == ""


def test_rows_of_the_version_before_are_lifted_where_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up change: the last field of either row is new."""
    old_user = without_tail(USER_ROW)
    old_item = without_tail(ITEM_ROW)

    def lift(dtype: np.dtype, version: int) -> Callable[[np.ndarray], np.ndarray]:
        def lifted(rows: np.ndarray) -> np.ndarray:
            out = np.zeros(len(rows), dtype)
            for name in rows.dtype.names or ():
                out[name] = rows[name]
            out["version"] = version
            return out

        return lifted

    users = user_row.FORMAT._replace(older={1: Older(old_user, lift(USER_ROW, OURS["user"]))})
    items = item_rows.FORMAT._replace(older={2: Older(old_item, lift(ITEM_ROW, OURS["item"]))})
    monkeypatch.setattr("streams.user_table.FORMAT", users)
    monkeypatch.setattr("streams.items.FORMAT", items)

    table = UserTable(1, 64)
    table.admit(0, ["old", "ours", "new"], [old_row(old_user, 1, clock_ms=7), EMPTY_ROW.tobytes(), None], 1)
    rows = table.rows[[table.slots[0][user] for user in ("old", "ours", "new")]]
    assert rows["version"].tolist() == [OURS["user"]] * 3 and rows["clock_ms"].tolist() == [7, 0, 0]

    catalogue = ItemTable(Settings(partitions=1))
    catalogue.load(0, [old_row(old_item, 2, hash=5, touches=3)], 9, [1], 0)
    assert catalogue.rows["version"][:1].tolist() == [OURS["item"]] and catalogue.rows["touches"][0] == 3
    catalogue.add("another")
    assert catalogue.rows["version"][:2].tolist() == [OURS["item"]] * 2, "a new row is of our version"


def without_tail(dtype: np.dtype) -> np.dtype:
    """The layout without its last field, which our version has added."""
    return np.dtype([(name, dtype[name]) for name in (dtype.names or ())[:-1]])


def old_row(dtype: np.dtype, version: int, **values: int) -> bytes:
    row = np.zeros((), dtype)
    row["version"] = version
    for name, value in values.items():
        row[name] = value
    return bytes(row.tobytes())
