"""Who is asked before a batch is absorbed, and what he is taught: only by what opens something new, never by its own items."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from infra.settings import Settings
from streams.engine import Engine, LogRecord
from streams.prequential import BASKETS, MOST_BASKETS, Prequential

NOW_MS = 1_763_778_821_000
SETTINGS = Settings(partitions=1, list_size=20, max_users=256)


def records(*events: tuple[str, str, int, str], first: int = 0) -> list[LogRecord]:
    """(user, item, seconds, type) as they would lie in the log from offset `first`."""
    return [
        LogRecord(
            first + k,
            NOW_MS,
            json.dumps({"event_id": f"e{first + k}", "user_id": user, "item_id": item, "event_type": kind,
                        "timestamp": NOW_MS + 1000 * s}).encode(),
        )
        for k, (user, item, s, kind) in enumerate(events)
    ]  # fmt: skip


def engine_after(*events: tuple[str, str, int, str]) -> Engine:
    engine = Engine(SETTINGS, clock_ms=lambda: NOW_MS)
    engine.absorb(0, records(*events))
    return engine


def asked(engine: Engine, batch: list[LogRecord], *, behind: bool = False) -> list[Any]:
    """Lessons of a batch, which is not absorbed."""
    users = engine.state.users
    decoded = users.decode(0, batch)
    users.admit(0, decoded, [None] * len(decoded.missing))
    return Prequential(SETTINGS, users, engine.state.refresher).lessons(0, decoded, behind=behind)


OLD = [(user, item, 0, "purchase") for user in ("a", "b") for item in ("i", "j", "k")]


def test_a_basket_is_what_was_taken_at_one_moment() -> None:
    batch = records(
        ("a", "i", 9, "purchase"), ("b", "k", 9, "purchase"), ("a", "j", 9, "purchase"), ("a", "new", 9, "purchase"),
        ("a", "k", 10, "purchase"), first=6,
    )  # fmt: skip
    (lesson,) = asked(engine_after(*OLD), batch)
    assert (lesson.n, lesson.n_items, lesson.n_found) == (2, 4, 3)  # k of a came later; nobody has seen "new" yet
    assert lesson.n_hits == 2
    assert np.isfinite(lesson.gradient).all() and lesson.gradient.any()


def test_nobody_is_asked_about_what_opens_nothing() -> None:
    engine = engine_after(*OLD)
    late = records(("a", "j", 0, "purchase"), ("b", "j", -5, "purchase"), first=6)
    shown = records(("a", "j", 9, "impression"), ("b", "j", 9, "dislike"), first=6)
    unknown = records(("c", "j", 9, "purchase"), first=6)
    again = records(*((user, item, 9, kind) for user, item, _, kind in OLD))  # offsets that the rows have absorbed
    assert [asked(engine, batch) for batch in (late, shown, unknown, again)] == [[], [], [], []]


def test_asking_changes_nothing_but_popularity() -> None:
    engine = engine_after(*OLD)
    state = engine.state
    before = state.users.table.rows.tobytes(), state.items.rows.tobytes(), state.refresher.fusion.state.tobytes()
    assert asked(engine, records(("a", "i", 9, "purchase"), first=6))
    assert before == (state.users.table.rows.tobytes(), state.items.rows.tobytes(), state.refresher.fusion.state.tobytes())


def test_hits_are_what_the_user_would_have_been_shown() -> None:
    """Neither a hidden item nor one that this user must not see again is a hit, however high fusion ranks it; what popularity
    fills a list with is one."""
    def hits(engine: Engine, item: str, settings: Settings = SETTINGS) -> int:
        batch = records(("a", item, 9, "purchase"), first=100)
        users = engine.state.users
        decoded = users.decode(0, batch)
        users.admit(0, decoded, [None] * len(decoded.missing))
        (lesson,) = Prequential(settings, users, engine.state.refresher).lessons(0, decoded)
        return lesson.n_hits

    shown = engine_after(*OLD)
    assert hits(shown, "i") == 1
    shown.describe_item(b"i", b'{"hidden": true}', NOW_MS)
    assert (hits(shown, "i"), hits(shown, "j")) == (0, 1)

    seen = Settings(partitions=1, list_size=20, max_users=256, seen_types="purchase")
    engine = Engine(seen, clock_ms=lambda: NOW_MS)
    engine.absorb(0, records(*OLD, ("c", "other", 0, "click")))
    assert (hits(engine, "i", seen), hits(engine, "other", seen)) == (0, 1), "of what a may still see, only the other is left"


def test_many_baskets_make_lessons_of_a_few_each() -> None:
    users = [f"u{k}" for k in range(MOST_BASKETS + 10)]
    engine = engine_after(*((user, f"i{k % 7}", 0, "click") for k, user in enumerate(users)))
    lessons = asked(engine, records(*((user, "i3", 5, "click") for user in users), first=100))
    assert sum(lesson.n for lesson in lessons) == MOST_BASKETS
    assert all(lesson.n <= BASKETS for lesson in lessons)


def test_the_engine_learns_from_what_it_absorbs() -> None:
    engine = engine_after(*OLD)
    engine.absorb(0, records(("a", "i", 9, "purchase"), ("b", "k", 9, "purchase"), first=6))
    state = engine.state.refresher.fusion.state
    assert (int(state["n_steps"]), int(state["n_lessons"])) == (1, 2)


def test_on_a_backlog_nothing_is_learned_from_items_of_another_time() -> None:
    day = 86_400
    then = -60 * day
    long_ago = [(user, item, then, kind) for user, item, _, kind in OLD]
    engine = engine_after(*long_ago)
    for later, behind, n in ((9, True, 1), (day - 60, True, 1), (day + 60, True, 0), (30 * day, True, 0), (30 * day, False, 1)):
        assert len(asked(engine, records(("a", "i", then + later, "purchase"), first=6), behind=behind)) == n, (later, behind)
    # users may be behind items too, where partitions go on at different speeds
    ahead = engine_after(*long_ago, ("c", "i", then + day, "purchase"), ("c", "j", then + 2 * day, "purchase"), ("c", "k", then + 3 * day, "purchase"))
    batch = records(("a", "i", then + 9, "purchase"), first=9)
    assert not asked(ahead, batch, behind=True)
    assert len(asked(ahead, batch)) == 1
