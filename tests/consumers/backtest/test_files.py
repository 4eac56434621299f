"""Logs from files and by name: columns found or given, rows that are no events counted, what is missing said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from consumers.backtest import datasets
from consumers.backtest.files import load_file
from consumers.backtest.log import Log, LogError, make_log
from consumers.columns import ColumnError
from consumers.tables import TableError
from streams.events import TYPE_CODES, RatingScale

ROWS = """household,product_id,bought_at,kind,ticket,shelf
h1,p1,2024-01-01T10:00:00,buy,t1,fruit
h2,p1,2024-01-01T09:00:00,view,t2,fruit
h1,p2,2024-01-01T10:00:05,buy,t1,
h1,p3,2024-01-02T10:00:00,buy,t3,bread
"""
COLUMNS = {"user": "household", "time": "bought_at", "type": "kind", "basket": "ticket", "category": "shelf"}


def told(log: Log) -> list[tuple[str, str, int]]:
    return [(log.user_ids[u], log.item_ids[i], int(b)) for u, i, b in zip(log.users, log.items, log.baskets, strict=True)]


def test_a_file_with_its_columns_named(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text(ROWS)
    data = load_file(path, COLUMNS)
    log = data.log
    assert told(log) == [("h2", "p1", 0), ("h1", "p1", 1), ("h1", "p2", 1), ("h1", "p3", 2)]
    assert log.types.tolist() == [TYPE_CODES[t] for t in ("view", "purchase", "purchase", "purchase")]
    assert np.diff(log.times_ms).tolist() == [3_600_000, 0, 86_400_000], "a basket is one moment"
    assert log.categories is not None and log.categories[log.item_ids.index("p2")] == -1
    assert len(set(log.categories[[log.item_ids.index(i) for i in ("p1", "p3")]])) == 2
    assert "basket=ticket" in data.notes[0]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv.gz"])
def test_other_formats_say_the_same(tmp_path: Path, kind: str) -> None:
    import gzip

    plain = tmp_path / "tickets.csv"
    plain.write_text(ROWS)
    head, *lines = [line.split(",") for line in ROWS.split()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    path = tmp_path / f"tickets.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(ROWS.encode()))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    one, other = load_file(plain, COLUMNS).log, load_file(path, COLUMNS).log
    assert told(one) == told(other) and (one.times_ms == other.times_ms).all() and (one.types == other.types).all()


def test_usual_names_are_found_and_a_session_is_no_basket(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("sessionId,userId,item,ts\ns,u,a,1700000000\ns,u,b,1700000001\ns,v,a,1700000001\ns,u,c,1700000001\n")
    log = load_file(path, {}).log
    assert told(log) == [("u", "a", 0), ("u", "b", 1), ("u", "c", 1), ("v", "a", 2)]
    assert told(load_file(path, {"basket": "sessionId"}).log) == [("u", "a", 0), ("u", "b", 0), ("u", "c", 0), ("v", "a", 1)]


def test_without_a_time_the_order_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("user,item\nb,i\na,j\nb,i\n")
    data = load_file(path, {})
    assert told(data.log) == [("b", "i", 0), ("a", "j", 1), ("b", "i", 2)]
    assert "no column tells the time" in data.notes[0]


def test_ratings_with_their_values(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,stars,time\nu,b,4,2024-01-02\nu,a,1.5,2024-01-01\nv,a,,2024-01-03\nv,b,9,2024-01-04\nv,b,many,2024-01-05\n")
    data = load_file(path, {"value": "stars"}, default_type="rating", scale=RatingScale(1, 3, 5))
    log = data.log
    assert [log.item_ids[i] for i in log.items] == ["a", "b", "a"]
    assert np.array_equal(log.values, [1.5, 4, np.nan], equal_nan=True)
    assert np.array_equal(log.until(2).values, [1.5, 4])
    assert "2 of 5 rows are no events (2 value; row 4: a rating of 9 on a scale of 1 to 5" in data.notes[-1]
    assert len(load_file(path, {"value": "stars"}, scale=RatingScale(1, 3, 5)).log) == 4, "a purchase may carry any number"
    assert load_file(path, {}).log.values is None


def test_what_is_no_event_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("user,item,time\nu,i,2024-01-01\n,i,2024-01-01\nu,,2024-01-01\nu,i,never\nu,j,2024-01-02\n")
    data = load_file(path, {})
    assert len(data.log) == 2
    assert "3 of 5 rows are no events (2 id, 1 timestamp; row 2" in data.notes[-1]
    assert len(load_file(path, {}, limit=1).log) == 1


@pytest.mark.parametrize(("name", "text", "columns", "error", "said"), [
    ("x.csv", "user,item,time\nu,,1\n", {}, LogError, "none of the 1 rows"),
    ("x.csv", "who,item,time\nu,i,1\n", {}, ColumnError, "no column for user"),
    ("x.csv", "user,item,time\nu,i,1\n", {"time": "when"}, ColumnError, "no column 'when'"),
    ("x.csv", "user,item,time\nu,i,1\n", {"basket": "order"}, ColumnError, "no column 'order'"),
    ("x.csv", "user,item,time\nu,i,1\n", {"category": "shelf"}, LogError, "no column 'shelf'"),
    ("x.docx", "", {}, TableError, "does not end in"),
])
def test_mistakes_are_said(tmp_path: Path, name: str, text: str, columns: dict[str, str | None], error: type[Exception], said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=said):
        load_file(tmp_path / name, columns)


@pytest.mark.parametrize(("name", "folder", "said"), [
    ("diginetica", None, "say which one: --data FOLDER"),
    ("diginetica", "here", "needs .*ader_diginetica/period_0.txt, which is not there"),
    ("ml-1m", "here", "needs .*ml-1m.txt"),
    ("nothing", None, "is no data set, there are completejourney"),
])
def test_missing_sets_are_said(tmp_path: Path, name: str, folder: str | None, said: str) -> None:
    with pytest.raises(LogError, match=said):
        datasets.load(name, tmp_path if folder else None)


def test_a_set_of_periods(tmp_path: Path) -> None:
    folder = tmp_path / "ader_diginetica"
    folder.mkdir()
    for p in range(datasets.N_ADER_PERIODS):
        (folder / f"period_{p}.txt").write_text(f"{p} 7\n{p} {p + 10}\n" * (4 if p == 0 else 1))
    data = datasets.load("diginetica", tmp_path)
    log = data.log
    assert len(log) == 8 + 2 * 16 and log.periods is not None and log.periods[:10].tolist() == [0] * 8 + [1] * 2
    assert log.times_ms[8] - log.times_ms[0] == 4 * 7 * 86_400_000, "at the mean rate of later periods"
    assert log.times_ms[10] - log.times_ms[8] == 7 * 86_400_000
    assert (np.diff(log.times_ms) > 0).all() and len(set(log.baskets.tolist())) == len(log)


def test_the_last_item_of_each_user_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ml-1m.txt").write_text("1 5\n1 6\n1 7\n2 6\n2 5\n")
    data = datasets.load("ml-1m", tmp_path)
    assert told(data.log) == [("1", "5", 0), ("2", "6", 1), ("1", "6", 2), ("1", "7", 3), ("2", "5", 4)]
    assert data.log.periods is not None and data.log.periods.tolist() == [0, 0, 0, 1, 1]
    assert data.rules == {"protocol": "periodic", "score_periods": (1, 1)}


def test_numbers_are_by_first_appearance() -> None:
    log = make_log("x", ["z", "a", "z"], ["q", "b", "q"], np.array([30, 10, 20]), np.zeros(3))
    assert log.user_ids == ["a", "z"] and log.item_ids == ["b", "q"]
    assert log.users.tolist() == [0, 1, 1] and log.times_ms.tolist() == [10, 20, 30]


def test_a_basket_belongs_to_one_user_though_its_name_is_used_twice() -> None:
    log = make_log("x", ["a", "b", "a"], ["i", "i", "j"], np.array([1, 2, 3]), np.zeros(3), baskets=["t", "t", "t"])
    assert told(log) == [("a", "i", 0), ("a", "j", 0), ("b", "i", 1)]


def test_an_empty_log_is_none() -> None:
    with pytest.raises(LogError, match="holds no event"):
        make_log("x", [], [], np.empty(0, np.int64), np.empty(0))
