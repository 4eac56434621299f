"""Who is erased is forgotten, nobody else is touched, and it is the same however the log is cut or read again."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from models.user_row import EMPTY_ROW, USER_ROW
from streams.decode import APPENDED_HEADER, ORIGIN_HEADER, Decoder
from streams.engine import Engine, LogRecord
from streams.erasures import SLACK_MS, Erased, Erasures, ForeignErasures, users_named
from streams.events import InvalidEvent, decode_erase
from streams.partitioner import partition_of

T0 = 1_763_778_821_000
USERS = ("ann", "bob", "cy", "dé")
ONE = Settings(partitions=1)


def event(offset: int, user: str, item: str = "i1", **changes: Any) -> LogRecord:
    body = {"event_id": f"e{offset}", "user_id": user, "item_id": item, "event_type": "view", "timestamp": T0 + offset, **changes}
    return LogRecord(offset, T0 + offset, json.dumps(body).encode(), (), user.encode())


def erase(offset: int, user: str, **changes: Any) -> LogRecord:
    return LogRecord(offset, T0 + offset, json.dumps({"event_type": "erase", "user_id": user, **changes}).encode(), (), user.encode())


def a_log(seed: int, n: int = 120) -> list[LogRecord]:
    chance = random.Random(seed)
    log = []
    for offset in range(n):
        user = chance.choice(USERS)
        log.append(erase(offset, user) if chance.random() < 0.06 else event(offset, user, f"i{chance.randrange(9)}"))
    return log


def rows(engine: Engine) -> dict[str, bytes]:
    """Rows by user, of those who have one."""
    table = engine.state.users.table
    return {user: table.rows[slot].tobytes() for user, slot in table.slots[0].items() if not table.blank([slot])[0]}


def absorbed(log: list[LogRecord], *, batches: list[int] | None = None, heard: Erasures | None = None) -> Engine:
    engine, start = Engine(ONE), 0
    if heard is not None:
        for user in USERS:
            if heard.of(user) is not None and (told := heard.to_tell(user)) is not None:
                engine.state.users.erasures.hear(*told, 0)
    for size in [*(batches or []), len(log)]:
        if log[start : start + size]:
            engine.absorb(0, log[start : start + size])
        start += size
    return engine


def without_erased(log: list[LogRecord]) -> list[LogRecord]:
    """The log as if those who were erased had not been there before."""
    last: dict[str, int] = {}
    for record in log:
        body = json.loads(record.value or b"")
        if body["event_type"] == "erase":
            last[body["user_id"]] = record.offset
    return [record for record in log if (body := json.loads(record.value or b""))["event_type"] != "erase"
            and record.offset > last.get(body["user_id"], -1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 30), max_size=8))
def test_rows_are_those_of_a_log_without_the_erased(seed: int, batches: list[int]) -> None:
    log = a_log(seed)
    wanted = rows(absorbed(without_erased(log)))
    met = absorbed(log, batches=batches)
    assert rows(met) == wanted
    # read again by one who knows from the topic who was erased
    again = absorbed(log, batches=batches, heard=met.state.users.erasures)
    assert rows(again) == wanted


def test_what_is_read_again_counts_nowhere() -> None:
    log = [event(k, "ann", f"i{k % 3}") for k in range(10)] + [erase(10, "ann"), event(11, "bob", "i9")]
    first = absorbed(log, batches=[10])
    again = absorbed(log, heard=first.state.users.erasures)
    assert first.state.items.n_items == 4 and again.state.items.n_items == 1, "not even what he took is met again"
    assert set(rows(again)) == {"bob"}


def test_he_comes_back_as_somebody_new() -> None:
    log = [event(k, "ann", f"i{k}") for k in range(5)] + [erase(5, "ann")] + [event(6, "ann", "i7")]
    for batches in ([], [3], [5], [6], [1] * 7):
        engine = absorbed(log, batches=batches)
        row = engine.state.users.table.rows[engine.state.users.table.slots[0]["ann"]]
        assert (int(row["n_items"]), int(row["counts"].sum()), int(row["as_of"])) == (1, 1, 6)
    assert rows(absorbed([event(6, "ann", "i7")])) == rows(engine)


def test_an_erase_event_that_is_read_again_does_not_take_what_came_behind_it() -> None:
    """After a crash: the row knows more than the checkpoint, and the entry may not have been heard."""
    engine = Engine(ONE)
    users = engine.state.users
    later = absorbed([event(9, "ann", "i7")])
    row = later.state.users.table.rows[0].tobytes()
    decoded = users.decode(0, [erase(5, "ann")])
    users.admit(0, decoded, [row])
    users.erase(0, decoded.erased)
    assert users.table.rows[users.table.slots[0]["ann"]].tobytes() == row
    assert not users.table.changed.any() and not users.queues[0]


def test_he_is_not_evicted_for_those_who_come_in_the_same_fetch() -> None:
    users = Engine(Settings(partitions=1, max_users=64)).state.users
    many = [f"u{k}" for k in range(len(users.table.ids))]
    users.load(0, ["ann", *many[1:]], [None] * len(many))
    users.table.used[users.table.slots[0]["ann"]] = -1  # silent longest
    decoded = users.decode(0, [event(0, "ann"), erase(1, "ann"), *(event(2 + k, f"new{k}") for k in range(9))])
    users.admit(0, decoded, [None] * len(decoded.missing))
    users.erase(0, decoded.erased)
    assert users.table.n_evicted and users.table.blank([users.table.slots[0]["ann"]]) == [True]


def test_a_blank_row_is_one_that_was_erased_only() -> None:
    engine = absorbed([event(0, "ann", event_type="impression"), event(1, "bob"), erase(2, "bob")])
    table = engine.state.users.table
    assert table.blank([table.slots[0]["ann"], table.slots[0]["bob"]]) == [False, True]
    assert EMPTY_ROW["clock_ms"] == 0 and "clock_ms" in (USER_ROW.names or ())


def decoder(n: int = 1) -> tuple[Decoder, np.ndarray]:
    return Decoder(n), np.full(n, -1, np.int64)


def test_within_one_fetch_what_came_before_is_left_out_and_the_rest_stays_in_place() -> None:
    one, origins = decoder()
    fetch = [event(0, "ann"), event(1, "bob", event_type="rating", value=1), event(2, "ann"), erase(3, "ann"), event(4, "ann"), event(5, "bob")]
    for known in ({}, {"ann": 7}, {"bob": 8}, {"ann": 7, "bob": 8}):
        one, origins = decoder()
        out = one.decode(0, fetch, known, origins)
        assert out.offsets == [1, 4, 5] and out.n_erased == 2
        assert [name for name, _, _ in out.erased] == ["ann"]
        assert out.missing.get("bob", [0, 2]) == [0, 2] and out.missing.get("ann", [1]) == [1]
        assert ("ann" in out.missing) == ("ann" not in known)


def test_ratings_keep_their_shares() -> None:
    from streams.events import RatingScale

    one = Decoder(1, RatingScale(1, 3, 5))
    fetch = [event(0, "ann", event_type="rating", value=1), event(1, "bob", event_type="rating", value=4), erase(2, "ann")]
    assert one.decode(0, fetch, {}, np.full(1, -1, np.int64)).shares == {0: 0.5}


def test_rejected_events_of_the_erased_are_no_dead_letters_when_they_are_read_again() -> None:
    bad = [LogRecord(0, T0, b'{"user_id":"ann","event_type":"stare"}'), LogRecord(1, T0, b'{"user_id": "ann", broken'),
           LogRecord(2, T0, b'{"user_id":"bob"}'), LogRecord(3, T0, b'{"x":"' + b"y" * 300_000 + b'"}')]
    one, origins = decoder()
    out = one.decode(0, [*bad, erase(4, "ann")], {}, origins)
    assert [rejected.record.offset for rejected in out.rejected] == [0, 1, 2, 3], "in order they were letters before"
    out = one.decode(0, bad, {}, origins)
    assert [rejected.record.offset for rejected in out.rejected] == [2, 3] and out.n_erased == 2
    escaped = json.dumps({"user_id": "dé", "event_type": 1}).encode()
    one.erasures.add(0, Erased("dé", 9, T0 + 9))
    assert b"\\u00e9" in escaped and not one.decode(0, [LogRecord(5, T0, escaped)], {}, origins).rejected


def test_misplaced_events_are_told_by_the_time_at_which_they_came() -> None:
    n = 4
    home = partition_of("ann", n)
    one, origins = decoder(n)
    one.decode(home, [erase(50, "ann")], {}, origins)
    old = LogRecord(60, T0 + 60, event(60, "ann").value, ((ORIGIN_HEADER, b"0/3"), (APPENDED_HEADER, b"%d" % (T0 + 40))))
    new = LogRecord(61, T0 + 61, event(61, "ann").value, ((ORIGIN_HEADER, b"0/4"), (APPENDED_HEADER, b"%d" % (T0 + 51))))
    unknown = LogRecord(62, T0 + 62, event(62, "ann").value, ((ORIGIN_HEADER, b"0/5"),))  # moved by an older worker
    out = one.decode(home, [old, new, unknown], {}, origins)
    assert out.offsets == [61, 62] and out.n_erased == 1
    away = (home + 1) % n
    assert [partition for _, partition in one.decode(away, [event(3, "ann")], {}, origins).misplaced] == [home]
    assert [partition for _, partition in one.decode(away, [erase(4, "ann")], {}, origins).misplaced] == [home], "an erase event is moved as well"


def test_a_topic_made_anew_knows_no_old_places() -> None:
    erasures = Erasures()
    erasures.add(0, Erased("ann", 1_000, T0))
    assert erasures.skips("ann", 5, T0 - 1) and not erasures.skips("ann", 5, T0 + SLACK_MS + 1)
    erasures.add(0, Erased("ann", 20, T0 + 2 * SLACK_MS))
    assert not erasures.skips("ann", 500, T0 + 2 * SLACK_MS)


def test_what_is_told_is_heard_by_those_with_the_same_key_only() -> None:
    one = Erasures("secret")
    one.add(2, Erased("ann", 7, T0))
    key, value = one.to_tell("ann") or (b"", b"")
    assert b"ann" not in key + value and key.startswith(b"user/")
    other = Erasures("secret")
    other.hear(key, value, 3)
    assert other.skips("ann", 6, T0) and not other.skips("ann", 7, T0) and not other.skips("bob", 6, T0) and other.position == 4
    assert other.to_tell("ann") is None, "the topic knows"
    other.add(2, Erased("ann", 5, T0 - 5))
    assert other.to_tell("ann") is None and other.skips("ann", 6, T0), "an older one, read again, takes nothing back"
    other.add(2, Erased("ann", 9, T0 + 9))
    assert other.to_tell("ann") is not None
    for key_of_another in ("", "Secret", "x" * 200):
        with pytest.raises(ForeignErasures, match="STREAMREC_ERASURE_KEY"):
            Erasures(key_of_another).hear(key, value, 0)
    with pytest.raises(ForeignErasures, match="upgrade"):
        one.hear(key, value.replace(b'"v":1', b'"v":2'), 0)
    for foreign in ((None, value), (b"user/zz", value), (b"user/00", b"{"), (b"other", value)):
        Erasures("secret").hear(*foreign, 0)
    other.hear(key, None, 9)
    assert other.of("ann") is None


def test_hashes_need_the_key() -> None:
    names = {Erasures(key)._hash_of("ann") for key in ("", "a", "b", "x" * 64, "x" * 65)}
    assert len(names) == 5 and all(len(name) == 16 for name in names)


def test_what_is_an_erase_event() -> None:
    assert decode_erase(b'{"event_type":"erase","user_id":"ann"}') == "ann"
    assert decode_erase(b'{"event_type":"erase","user_id":"ann","event_id":"e","item_id":"i","timestamp":1,"x":{}}') == "ann"
    for value in (None, b"", b"{", b'{"event_type":"erase"}', b'{"event_type":"view","user_id":"ann"}', b'{"event_type":"erase","user_id":7}'):
        assert decode_erase(value) is None
    for value, reason in ((b'{"event_type":"erase","user_id":""}', "id"), (b'{"event_type":"erase","user_id":"a","schema_version":2}', "version")):
        with pytest.raises(InvalidEvent) as refusal:
            decode_erase(value)
        assert refusal.value.reason == reason
    assert list(users_named(b'{"user_id" : "a\\u0062", "user_id":"c"} \xff')) == ["ab", "c"]
