"""Ratings count by their value: in a user's row, in lists, in what is said of items and in what is learned."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from models.hashing import stable_hash
from models.history import WEIGHT_ONE
from streams.decode import Decoded
from streams.engine import Engine, LogRecord
from streams.events import EVENT_TYPES, InvalidEvent, RatingScale, rating_scale
from streams.prequential import Prequential

NOW_MS = 1_763_778_821_000
SETTINGS = Settings(partitions=1, list_size=20)
WHOLE = SETTINGS.type_weights()["rating"]


def record(offset: int, user: str, item: str, value: float | None, kind: str = "rating") -> LogRecord:
    event: dict[str, Any] = {"event_id": f"e{offset}", "user_id": user, "item_id": item, "event_type": kind,
                             "timestamp": NOW_MS + 1_000 * offset}
    if value is not None:
        event["value"] = value
    return LogRecord(offset, NOW_MS + 1_000 * offset, json.dumps(event).encode())


def rated(*events: tuple[Any, ...], **changes: Any) -> Engine:
    """An engine that has absorbed (user, item, value[, type]), one after the other."""
    engine = Engine(Settings(**{"partitions": 1, "list_size": 20, **changes}), clock_ms=lambda: NOW_MS)
    for offset, event in enumerate(events):
        engine.absorb(0, [record(offset, *event)])
    return engine


def weights(engine: Engine, user: str = "u") -> dict[int, float]:
    """What the user's items weigh as of their last events."""
    table = engine.state.users.table
    row = table.rows[table.slots[0][user]]
    n = int(row["n_items"])
    return dict(zip(row["items"][:n].tolist(), row["weights"][:n].tolist(), strict=True))


def listed(engine: Engine, user: str = "u") -> list[str]:
    found: list[str] = json.loads(engine.lists([user])[user])["items"]
    return found


@pytest.mark.parametrize(("value", "share"), [(5, 1), (4, 0.5), (3.2, 0.1), (2, -0.5), (1, -1), (None, 1)])
def test_a_rating_counts_by_its_value(value: float | None, share: float) -> None:
    engine = rated(("u", "i", value))
    assert weights(engine) == {stable_hash("i"): pytest.approx(WHOLE * share)}
    items = engine.state.items
    long_ring = int(items.rows[0]["counts"].view(np.int32).sum()) / 4  # the same count stands in each of the four
    assert long_ring == pytest.approx(WHOLE * share * WEIGHT_ONE, abs=1)


@pytest.mark.parametrize(("scale", "value", "share"), [
    ("0,50,100", 100, 1), ("0,50,100", 75, 0.5), ("0,50,100", 0, -1), ("-1,0,1", -0.5, -0.5), ("0,1,10", 1.9, 0.1),
])  # fmt: skip
def test_on_any_scale(scale: str, value: float, share: float) -> None:
    assert weights(rated(("u", "i", value), rating_scale=scale)) == {stable_hash("i"): pytest.approx(WHOLE * share)}


@given(st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=3, unique=True), st.floats(0, 1), st.floats(0, 1))
def test_who_rates_higher_never_counts_less(points: list[float], one: float, other: float) -> None:
    scale = RatingScale(*sorted(points))
    low, high = (min(scale.low + part * (scale.high - scale.low), scale.high) for part in sorted((one, other)))
    assert -1 <= scale.share(low) <= scale.share(high) <= 1
    assert (scale.share(low) < 0) == (low < scale.neutral)


def test_neutral_is_counted_and_leaves_nothing_else() -> None:
    engine = rated(("u", "i", 3), ("u", "j", 5), ("u", "i", 3))
    assert list(weights(engine)) == [stable_hash("j")]
    table = engine.state.users.table
    assert table.rows[table.slots[0]["u"]]["counts"][EVENT_TYPES.index("rating")] == 3


@pytest.mark.parametrize("value", [5.01, 0, -1, 87])
def test_beyond_the_scale_is_a_dead_letter_that_names_the_setting(value: float) -> None:
    engine = Engine(SETTINGS)
    decoded = engine.absorb(0, [record(0, "u", "i", value)])
    (rejected,) = decoded.rejected
    assert rejected.reason == "value" and "1 to 5" in rejected.detail and "rating_scale" in rejected.detail
    assert not decoded.offsets and not engine.state.items.n_items


def test_values_that_are_not_read() -> None:
    assert weights(rated(("u", "i", 87), rating_scale="")) == {stable_hash("i"): WHOLE}
    for kind in ("purchase", "view", "dislike"):
        assert weights(rated(("u", "i", 99.5, kind))) == weights(rated(("u", "i", None, kind))) != {}


def test_what_is_rated_low_is_in_no_list() -> None:
    crowd = [(f"v{k}", f"i{k % 6}", 5) for k in range(60)]
    engine = rated(*crowd, ("u", "i0", 5), ("u", "i1", 2), ("u", "i2", 1), ("u", "i3", 3.5))
    assert set(listed(engine)) == {"i0", "i3", "i4", "i5"}


def test_it_stays_out_when_the_row_has_forgotten_it_and_comes_back_when_it_is_wanted() -> None:
    crowd = [(f"v{k}", "i", 5) for k in range(20)]
    after = [("u", f"j{k}", 5) for k in range(60)]
    engine = rated(*crowd, ("u", "i", 2), *after, list_size=100)
    assert stable_hash("i") not in weights(engine), "the row is full of others"
    assert "i" not in listed(engine)
    engine.absorb(0, [record(1_000, "u", "i", None, "purchase")])
    assert "i" in listed(engine)


@pytest.mark.parametrize(("values", "shown"), [((1, 5), True), ((5, 1), False), ((5, 2), False), ((2, 3.5), True), ((1, 3), False)])
def test_the_last_opinion_counts(values: tuple[float, float], shown: bool) -> None:
    engine = rated(("v", "i", 5), ("v", "j", 5), *(("u", "i", value) for value in values), ("u", "j", 4))
    assert ("i" in listed(engine)) == shown


def test_what_a_rating_teaches() -> None:
    users = Engine(SETTINGS).state.users
    log = [record(k, "u", f"i{k}", value) for k, value in enumerate([5, 4, 1, 3.5, None])]
    decoded = users.decode(0, log)
    users.admit(0, decoded, [None])
    users.absorb(0, decoded, len(log))
    lessons = users.take_lessons(0).lessons
    assert lessons.heads["weight"].tolist() == pytest.approx([1.5, -3, 0.75, 3])
    assert lessons.heads["n_context"].tolist() == [1, 2, 2, 3], "what was disliked stands in no history"
    said = [0.75, 1.5 * 0.8, 3 * 0.8**2]  # the newest says most; each by what it was rated
    last = lessons.shares[-3:].tolist()
    assert last == pytest.approx([255 * weight / max(said) for weight in said], abs=1)


def test_a_low_rating_was_not_what_the_lists_had_to_foresee() -> None:
    def lessons(value: float) -> int:
        engine = rated(("u", "i", 5), ("u", "j", 5))
        users = engine.state.users
        decoded: Decoded = users.decode(0, [record(2, "u", "i", value)])
        return len(Prequential(SETTINGS, users, engine.state.refresher).lessons(0, decoded))

    assert (lessons(4), lessons(2)) == (1, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([None, 1, 2, 3, 3.5, 5, 9])), min_size=1, max_size=60),
       st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_any_split_and_any_redelivery_ends_the_same(events: list[tuple[int, int, float | None]], sizes: list[int]) -> None:
    log = [record(k, f"u{u}", f"i{i}", value) for k, (u, i, value) in enumerate(events)]

    def outcome(sizes: list[int], again: int) -> tuple[object, ...]:
        engine = Engine(Settings(partitions=1, learn="off"), clock_ms=lambda: NOW_MS)
        first = turn = 0
        while first < len(log):
            last = min(first + sizes[turn % len(sizes)], len(log))
            engine.absorb(0, log[max(0, first - again) : last])
            first, turn = last, turn + 1
        users, items = engine.state.users.table, engine.state.items
        rows = items.rows[: items.n_items].copy()
        rows["as_of"] = 0
        return ({user: users.rows[slot].tobytes() for user, slot in users.slots[0].items()},
                sorted(row.tobytes() for row in rows))

    assert outcome(sizes, 3) == outcome([1], 0)


def test_the_scale_of_the_settings() -> None:
    assert rating_scale(SETTINGS) == (1, 3, 5) and rating_scale(Settings(rating_scale="")) is None
    with pytest.raises(InvalidEvent):
        RatingScale(1, 3, 5).share(6)
