"""What others may have written to our keys, and a Redis that will not for now: refused with words, waited for, or left alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import redis.exceptions

from infra.settings import Settings, SettingsError
from models.hashing import stable_hash
from models.item_rows import ITEM_ROW, MAX_ID_BYTES, N_SUCCESSORS
from models.item_rows import ROW_VERSION as ITEM_VERSION
from models.user_row import EMPTY_ROW, N_EVENT_IDS, N_ITEMS
from models.user_row import ROW_VERSION as USER_VERSION
from streams import patience
from streams.items import ItemTable, NewerItemRow
from streams.patience import RedisRefuses, until_there
from streams.store import RefusedRedis, _checkpoint, _versioned
from streams.sweep import _named
from streams.user_table import NewerRow, read_rows


def user_row(**values: object) -> bytes:
    row = EMPTY_ROW.copy()
    for name, value in values.items():
        row[name] = value
    return bytes(row.tobytes())


@pytest.mark.parametrize("row", [
    user_row(n_items=N_ITEMS + 1),
    user_row(n_items=255),
    user_row(next_id=N_EVENT_IDS),
    user_row(weights=np.nan),
    user_row(weights=np.inf),
    user_row(version=USER_VERSION + 1),
    user_row()[:-1],
    user_row() + b"x",
    b"",
    b"hello",
])
def test_user_rows_that_no_worker_writes(row: bytes) -> None:
    with pytest.raises(NewerRow):
        read_rows([user_row(), row])


def test_user_rows_at_their_limits() -> None:
    assert len(read_rows([user_row(n_items=N_ITEMS, next_id=N_EVENT_IDS - 1, weights=3e38), user_row()])) == 2
    assert len(read_rows([])) == 0


def item_row(**values: object) -> bytes:
    row = np.zeros((), ITEM_ROW)
    row["version"], row["hash"], row["id_bytes"] = ITEM_VERSION, stable_hash("i"), 1
    row["id"][0] = ord("i")
    for name, value in values.items():
        row[name] = value
    return bytes(row.tobytes())


@pytest.mark.parametrize("row", [
    item_row(n_successors=N_SUCCESSORS + 1),
    item_row(n_successors=2**32 - 1),
    item_row(id_bytes=MAX_ID_BYTES + 1),
    item_row(version=ITEM_VERSION + 1),
    item_row()[:-8],
    b"",
])
def test_item_rows_that_no_worker_writes(row: bytes) -> None:
    table = ItemTable(Settings(partitions=1))
    with pytest.raises(NewerItemRow):
        table.load(0, [item_row(), row], 1, [0], 0)
    assert table.n_items == 0 and table.position[0] == 0


def test_rows_of_an_older_worker_ask_for_a_rebuild() -> None:
    """State from before an upgrade: the worker is not what is old."""
    with pytest.raises(NewerItemRow, match=f"version {ITEM_VERSION - 1} .* older worker, build new state"):
        ItemTable(Settings(partitions=1)).load(0, [item_row(version=ITEM_VERSION - 1)[:-100]], 1, [0], 0)
    with pytest.raises(NewerItemRow, match="upgrade the worker"):
        ItemTable(Settings(partitions=1)).load(0, [item_row(version=ITEM_VERSION + 1)], 1, [0], 0)


def test_item_rows_at_their_limits() -> None:
    table = ItemTable(Settings(partitions=1))
    table.load(0, [item_row(n_successors=N_SUCCESSORS)], 5, [7], 9)
    assert table.ids == ["i"] and table.position[0] == 5 and table.highest[0, 0] == 7


@pytest.mark.parametrize("value", [b"junk", b"", b"[]", b"7", b'"text"', b"null", b"\xff\xfe", b"{", b"{}", b'{"v":"x"}', b'{"v":1}'])
def test_a_checkpoint_that_is_junk(value: bytes) -> None:
    for read in (lambda: _versioned(value, "items checkpoint", "offset"), lambda: _checkpoint("token", value, b"3")):
        with pytest.raises(RefusedRedis, match="something else writes to our keys"):
            read()


def test_a_highest_offset_that_is_junk() -> None:
    with pytest.raises(RefusedRedis, match="something else writes to our keys"):
        _checkpoint("token", None, b"junk")


def test_a_checkpoint_of_a_newer_version() -> None:
    with pytest.raises(RefusedRedis, match="upgrade"):
        _checkpoint("token", b'{"v": 2}', None)
    found = _checkpoint("token", b'{"v": 1, "offset": 5, "origins": [-1, 3]}', b"9")
    assert (found.offset, found.origins, found.shown) == (5, (-1, 3), 9)
    assert _checkpoint("token", None, None, 7).offset == 7


@pytest.mark.parametrize("body", [
    b'{"items":["\xff"]}',
    b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"items":[]}',
    b'{"items":[1]}',
    b'{"items":"i"}',
    b"[]",
    b"",
    b"text",
    b'{"items":["\\ud800"]}',
])
def test_the_sweep_leaves_foreign_values_alone(body: bytes) -> None:
    assert list(_named(body)) == []


def test_the_sweep_reads_lists() -> None:
    assert _named(b'{"v":1,"user":"u","items":["a","b"],"scores":[1,0.5]}') == ["a", "b"]


FOR_NOW = [
    redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist"),
    redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    redis.exceptions.ResponseError("MASTERDOWN Link with MASTER is down"),
    redis.exceptions.ResponseError("BUSY Redis is busy running a script."),
    redis.exceptions.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"),
    redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'"),
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    redis.exceptions.ConnectionError("refused"),
    redis.exceptions.TimeoutError(),
    RedisRefuses("no"),
    ConnectionResetError(),
]


@pytest.mark.parametrize("error", FOR_NOW, ids=lambda error: f"{type(error).__name__}-{str(error)[:9]}")
def test_waits_while_redis_will_not(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_FIRST_S", 0.001)
    told: list[str] = []
    answers: list[Exception | str] = [error, error, "there"]

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        told.append("waits")
        yield
        told.append("goes on")

    async def operation() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            assert told != ["goes on"]
            raise answer
        return answer

    assert asyncio.run(until_there(operation, waiting)) == "there"
    assert told == ["waits", "goes on"]


@pytest.mark.parametrize("error", [redis.exceptions.ResponseError("WRONGTYPE Operation against a key"), ValueError("ours")])
def test_does_not_wait_for_what_waiting_cannot_mend(error: Exception) -> None:
    async def operation() -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(until_there(operation, contextlib.nullcontext))


@pytest.mark.parametrize("weight", ["1e7", "-1e7", "1000001", "1e300", "nan", "inf", "-inf"])
def test_weights_that_a_row_cannot_hold(weight: str) -> None:
    with pytest.raises(SettingsError, match="weights"):
        Settings(weights=f"purchase={weight}")


def test_weights_at_their_limits() -> None:
    weights = Settings(weights="purchase=1e6,dislike=-1e6").type_weights()
    assert (weights["purchase"], weights["dislike"]) == (1e6, -1e6)
    assert all(abs(round(weight * 64)) < 2**31 for weight in weights.values())
