"""From files to messages, with nothing running: formats, columns, times, reasons, row numbers."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import consumers.tables
from consumers.columns import ColumnError, choose_columns, event_type, flag, id_text, time_ms
from consumers.row_messages import EventRows, ItemRows
from consumers.tables import Table, TableError
from streams.catalogue import decode_item
from streams.events import EARLIEST_MS, InvalidEvent, RatingScale, check, decode_event
from streams.partitioner import partition_of

NAMES = ["userId", "product_id", "ts", "kind"]
ROWS: list[tuple[Any, ...]] = [(1, "i1", 1763778821123, "view"), (2, "i2", 1763778821124, "buy"), (1, "ü", 1763778821125, None)]
T = 1763778821123


def write_csv(path: Path, delimiter: str = ",", start: str = "") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        csv.writer(file, delimiter=delimiter).writerows([NAMES, *ROWS])
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps({n: v for n, v in zip(NAMES, row, strict=True) if v is not None}) + "\n" for row in ROWS))
    return path


def write_parquet(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True)))
    pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=2)
    return path


def gzipped(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


FILES: dict[str, Callable[[Path], Path]] = {
    "csv": lambda d: write_csv(d / "a.csv"),
    "tsv": lambda d: write_csv(d / "a.tsv", "\t"),
    "semicolons and a byte order mark": lambda d: write_csv(d / "a.csv", ";", "\ufeff"),
    "csv.gz": lambda d: gzipped(write_csv(d / "a.csv")),
    "jsonl": lambda d: write_jsonl(d / "a.jsonl"),
    "ndjson.gz": lambda d: gzipped(write_jsonl(d / "a.ndjson")),
    "parquet": lambda d: write_parquet(d / "a.parquet"),
}


class Batch:
    """What is used of aiokafka's batch builder; full after two."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes | None]] = []

    def append(self, *, key: bytes, value: bytes | None, timestamp: int) -> object | None:
        if len(self.messages) == 2:
            return None
        self.messages.append((key, value))
        return self


def prepared_events(table: Table, given: dict[str, str | None], first: int = 0, **options: Any) -> tuple[Any, list[Any]]:
    chosen = choose_columns(table.names, given, "events")
    rows = [row for chunk in table.read(list(chosen.values()), first) for row in chunk]
    prepared = EventRows("f00", list(chosen), options.pop("default", "purchase"), options.pop("scale", None)).prepare(
        rows, first, options.pop("sent", set()), 4, Batch)
    return prepared, [(p, decode_event(value)) for p, batch in prepared.batches for _, value in batch.messages]


def test_ratings_beyond_the_scale_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"user,item,rating,time\nu,a,4,{T}\nu,b,8,{T}\nu,c,,{T}\n")
    prepared, events = prepared_events(Table(path), {}, default="rating", scale=RatingScale(1, 3, 5))
    assert [(e.item_id, e.value) for _, e in events] == [("a", 4), ("c", None)]
    assert prepared.rejected == {"value": ["row 2: a rating of 8 on a scale of 1 to 5; the setting rating_scale says which scale it is"]}
    assert prepared_events(Table(path), {}, default="rating")[0].accepted == 3


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_every_format_gives_the_same_events(make: Callable[[Path], Path], tmp_path: Path) -> None:
    prepared, events = prepared_events(Table(make(tmp_path)), {"type": "kind"})
    assert (prepared.n_rows, prepared.accepted, prepared.rejected) == (3, 3, {})
    assert sorted((e.event_id, e.user_id, e.item_id, e.event_type, e.timestamp) for _, e in events) == [
        ("f00:0", "1", "i1", "view", T), ("f00:1", "2", "i2", "purchase", T + 1), ("f00:2", "1", "ü", "purchase", T + 2)]
    assert all(p == partition_of(e.user_id, 4) for p, e in events)


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
@pytest.mark.parametrize("chunk_rows", [1, 2, 10])
def test_reading_from_any_row_gives_what_follows(make: Callable[[Path], Path], chunk_rows: int, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.tables, "CHUNK_ROWS", chunk_rows)
    table = Table(make(tmp_path))
    assert table.fraction() == 0.0
    everything = [row for chunk in table.read(["product_id"]) for row in chunk]
    assert everything == [("i1",), ("i2",), ("ü",)]
    for first in range(5):
        assert [row for chunk in table.read(["product_id"], first) for row in chunk] == everything[first:]
        assert first >= 3 or table.fraction() == 1.0


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    one, other = write_csv(tmp_path / "a.csv"), write_csv(tmp_path / "b.txt")
    assert Table(one).content_hash() == Table(other).content_hash()
    other.write_bytes(one.read_bytes() + b"\n")
    assert Table(one).content_hash() != Table(other).content_hash()


def test_bad_rows_cost_themselves_and_say_why(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"user,item,time,type,value\n"
                     b"u1,i1,1763778821123,view,\n" b"\n" b"u1\n" b",i1,1763778821123,view,\n"
                     b"u1,i1,never,view,1\n" b"u1,i1,1763778821123,stare,1\n" b"u1,i1,1763778821123,view,much\n"
                     b"u\xff,i1,1763778821123,view,1\n" b"u1,i1,1763778821123,view,inf\n" b"u1,i1,99999999999999,view,1\n"
                     b"u1,i1,2025-11-22T02:33:41.123Z,view,2.5\n")
    prepared, events = prepared_events(Table(path), {})
    assert [(e.event_id, e.timestamp, e.value) for _, e in sorted(events, key=lambda pair: pair[1].event_id)] == [
        ("f00:0", T, None), ("f00:10", T - 123 + 123, 2.5)]
    assert {reason: len(rows) for reason, rows in prepared.rejected.items()} == {
        "schema": 1, "id": 2, "timestamp": 2, "event_type": 1, "value": 2}
    assert prepared.rejected["schema"] == ["row 3: fewer fields than the header's 5"]
    assert prepared.accepted + sum(map(len, prepared.rejected.values())) == prepared.n_rows - 1  # one was empty


def test_bad_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = {"user_id": "u", "item_id": "i", "timestamp": T, "event_id": "mine", "properties": {"a": 1}, "value": None}
    path.write_text(json.dumps(good) + "\n{broken\n[1]\n\n" + json.dumps({**good, "user_id": ["u"], "item_id": ""}) + "\n" + "[" * 5000 + "\n")
    prepared, events = prepared_events(Table(path), {})
    assert [(e.event_id, e.properties, e.event_type) for _, e in events] == [("mine", {"a": 1}, "purchase")]
    assert {reason: len(rows) for reason, rows in prepared.rejected.items()} == {"json": 2, "schema": 1, "id": 1}


def test_what_was_sent_already_is_passed_over(tmp_path: Path) -> None:
    prepared, events = prepared_events(Table(write_csv(tmp_path / "a.csv")), {"type": "kind"}, sent={"f00:0", "f00:2"})
    assert (prepared.accepted, prepared.already_sent, [e.event_id for _, e in events]) == (3, 2, ["f00:1"])
    assert list(prepared.last_ids.values()) == ["f00:1"]


def test_parquet_times_gaps_and_numbers(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    when = datetime(2025, 11, 22, 2, 33, 41, 123000)
    table = pyarrow.table({"user": [7.0, None], "item": [1, 2], "time": [when, when], "rating": [4.5, None]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    prepared, events = prepared_events(Table(tmp_path / "a.parquet"), {}, default="rating")
    assert [(e.user_id, e.item_id, e.timestamp, e.value, e.event_type) for _, e in events] == [
        ("7", "1", round(when.replace(tzinfo=UTC).timestamp() * 1000), 4.5, "rating")]
    assert list(prepared.rejected) == ["id"]


def test_items(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("sku,Product Name,category,hidden,expires_at\ni1,Tea,drinks,,\ni2,,,yes,2026-01-01\ni3,,,perhaps,\n,x,,,\ni4,,,,soon\n")
    table = Table(path)
    chosen = choose_columns(table.names, {}, "items")
    rows = next(table.read(list(chosen.values())))
    prepared = ItemRows(list(chosen)).prepare(rows, 0, set(), 1, Batch)
    items = dict(decode_item(key, value) for _, batch in prepared.batches for key, value in batch.messages)
    assert items["i1"].title == "Tea" and not items["i1"].hidden  # type: ignore[union-attr]
    assert items["i2"].hidden and items["i2"].expires_at == 1767225600000  # type: ignore[union-attr]
    assert {reason: len(found) for reason, found in prepared.rejected.items()} == {"schema": 1, "id": 1, "timestamp": 1}


@pytest.mark.parametrize(("names", "given", "says"), [
    (["user", "item"], {}, "no column for time; the file has user, item. Say which it is .--time NAME"),
    (["user", "item", "when"], {"time": "wen"}, "no column 'wen' .for time., did you mean 'when'"),
    (["user", "item", "time"], {"colour": "x"}, "colour is no column of an import of events"),
])
def test_missing_columns_are_named(names: list[str], given: dict[str, str | None], says: str) -> None:
    with pytest.raises(ColumnError, match=says):
        choose_columns(names, given, "events")


def test_a_given_column_is_not_taken_for_another_role() -> None:
    chosen = choose_columns(["user", "event", "date", "item"], {"item": "event", "type": None}, "events")
    assert chosen == {"user": "user", "item": "event", "time": "date"}


@given(st.integers(EARLIEST_MS, 4_000_000_000_000))
def test_every_way_to_write_a_time_is_the_same_time(ms: int) -> None:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    for written in (ms, str(ms), ms * 1000, ms * 1_000_000, ms / 1000, str(ms / 1000), when.isoformat(), f" {when:%Y-%m-%d %H:%M:%S.%f} ",
                    when.astimezone(timezone(timedelta(hours=-5))).isoformat(), when.isoformat().replace("+00:00", "Z")):
        assert time_ms(written) == ms, written
    assert time_ms(ms // 1000) == time_ms(str(ms // 1000)) == ms // 1000 * 1000


def test_a_compact_date_is_a_date() -> None:
    assert time_ms("20251122") == time_ms("2025-11-22") == 1763769600000


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())))
def test_whatever_a_cell_holds_is_either_understood_or_refused(cell: Any) -> None:
    roles = ["user", "item", "time", "type", "value", "event_id", "session", "request", "properties"]
    good = ("u", "i", T, "view", 1, "e", "s", "r", {})
    for place in range(len(roles)):
        row = good[:place] + (cell,) + good[place + 1:]
        prepared = EventRows("f00", roles, "view").prepare([row], 0, set(), 4, Batch)
        assert prepared.accepted + sum(map(len, prepared.rejected.values())) == 1
        for _, batch in prepared.batches:
            for _, value in batch.messages:
                check(decode_event(value), 4_102_444_800_000)
    prepared = ItemRows(["item", "title", "hidden", "expires_at"]).prepare([(cell, cell, cell, cell)], 0, set(), 4, Batch)
    assert prepared.accepted + sum(map(len, prepared.rejected.values())) == 1


def test_small_readings() -> None:
    assert [id_text(v) for v in (7, 7.0, 7.5, None, float("nan"), "007")] == ["7", "7", "7.5", "", "", "007"]
    assert [event_type(v, "click") for v in ("Add-To-Cart", "BUY", None, "", float("nan"))] == [
        "add_to_cart", "purchase", "click", "click", "click"]
    assert [flag(v) for v in (True, "No", None, 1.0, "y")] == [True, False, False, True, True]
    with pytest.raises(InvalidEvent):
        EventRows("f", ["user", "item", "time"], "stare")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1nonsense")
    (tmp_path / "x.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "x.dat").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "cut.jsonl").write_text('{"user_id": "u", ')
    for name, says in (("empty.csv", "no lines.*expected a first line"), ("cut.jsonl", "expected an object in each line"),
                       ("nowhere.csv", "not a file"), ("x.parquet", "cannot be read as parquet"), ("x.csv.gz", "cannot be read as csv"),
                       ("x.dat", "say --format")):
        with pytest.raises(TableError, match=says):
            Table(tmp_path / name)
    with pytest.raises(TableError, match="expected csv, jsonl or parquet"):
        Table(tmp_path / "x.dat", "xlsx")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TableError, match=r"pip install 'streamrec\[parquet\]'"):
        Table(tmp_path / "x.parquet")
