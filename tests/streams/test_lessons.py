"""Lessons: what an event teaches, how it travels, and that nothing is learned twice."""

from __future__ import annotations


import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from models.fusion import Lesson, fresh, n_parameters
from models.lessons import LESSON, N_CONTEXT, Lessons
from models.mf import MatrixFactors
from models.user_row import N_ITEMS
from streams.engine import Engine, LogRecord
from streams.lessons import ForeignLessons, Learner, NewerLessons, Noted, no_lessons, pack, unpack

NOW_MS = 1_763_778_821_000


def event(k: int, user: str, item: str, kind: str = "click", time_ms: int | None = None) -> LogRecord:
    body = {"event_id": f"e{k}", "user_id": user, "item_id": item, "event_type": kind,
            "timestamp": NOW_MS + 1_000 * k if time_ms is None else time_ms}
    return LogRecord(k, NOW_MS, msgspec.json.encode(body))


def noted(records: list[LogRecord], **settings: object) -> Lessons:
    engine = Engine(Settings(partitions=1, **settings), clock_ms=lambda: NOW_MS)  # type: ignore[arg-type]
    users = engine.state.users
    decoded = users.decode(0, records)
    users.admit(0, decoded, [None] * len(decoded.missing))
    users.absorb(0, decoded, records[-1].offset + 1)
    return users.take_lessons(0).lessons


def test_a_lesson_is_what_stood_before() -> None:
    lessons = noted([event(0, "u", "a"), event(1, "u", "b"), event(2, "u", "c")], mf_recency=0.5)
    hashes = {name: noted([event(0, "x", "z"), event(1, "x", name)]).heads["item"][0] for name in "abc"}
    assert lessons.heads["item"].tolist() == [hashes["b"], hashes["c"]], "a first event has nothing before it"
    assert lessons.heads["n_context"].tolist() == [1, 2]
    assert lessons.items.tolist() == [hashes["a"], hashes["b"], hashes["a"]], "newest first"
    assert lessons.shares.tolist() == pytest.approx([255, 255, 127.5], abs=1), "the older says half"
    assert lessons.heads["n_back"].tolist() == [1, 2]


def test_a_basket_does_not_predict_itself() -> None:
    together = [event(k, "u", f"i{k}", time_ms=NOW_MS) for k in range(3)]
    assert not len(noted(together).heads)
    later = event(3, "u", "i9", time_ms=NOW_MS + 60_000)
    assert noted([*together, later]).heads["n_context"].tolist() == [3]


def test_what_lies_before_the_session_is_not_learned_backwards() -> None:
    day = 86_400_000
    events = [event(0, "u", "a", time_ms=NOW_MS - 3 * day), event(1, "u", "b", time_ms=NOW_MS), event(2, "u", "c", time_ms=NOW_MS + 1_000)]
    assert noted(events).heads["n_back"].tolist() == [0, 1]


def test_long_histories_are_drawn_by_weight() -> None:
    events = [event(k, "u", f"i{k}", kind="purchase" if k < 5 else "click") for k in range(N_ITEMS)]
    lessons = noted([*events, event(99, "u", "new")], mf_recency=1.0)
    last = lessons.heads[-1]
    assert last["n_context"] <= N_CONTEXT
    shares = lessons.shares[-int(last["n_context"]) :]
    assert shares.sum() == pytest.approx(N_CONTEXT, abs=1), "as many draws as a context has places"
    assert shares[-5:].mean() > 1.5 and (shares[:-5] == 1).all(), "what weighs five times as much is drawn more often"


def test_it_is_said_whether_the_user_had_it_before() -> None:
    day = 86_400_000
    events = [event(k, "u", name, time_ms=NOW_MS + (k - 9) * day) for k, name in enumerate("abcab")]
    lessons = noted([*events, event(5, "u", "x", time_ms=NOW_MS), event(6, "u", "x", time_ms=NOW_MS)])
    assert lessons.heads["n_before"].tolist() == [1, 2, 3, 3, 3, 3]
    assert lessons.heads["again"].tolist() == [0, 0, 1, 1, 0, 0], "the second of a basket is nothing that was there before it"


def test_what_was_not_drawn_for_the_context_was_there_before_all_the_same() -> None:
    names = [f"i{k}" for k in range(N_ITEMS)]
    events = [event(k, "u", name) for k, name in enumerate([*names, *names])]
    lessons = noted(events, mf_recency=1.0)
    assert lessons.heads["again"].tolist() == [0] * (N_ITEMS - 1) + [1] * N_ITEMS
    starts = np.concatenate([[0], np.cumsum(lessons.heads["n_context"], dtype=np.int64)])
    drawn = [lessons.heads["item"][e] in lessons.items[starts[e] : starts[e + 1]]
             for e in range(N_ITEMS, 2 * N_ITEMS - 1)]
    assert not all(drawn), "else the test says nothing"


def test_dislikes_teach_and_impressions_do_not() -> None:
    lessons = noted([event(0, "u", "a"), event(1, "u", "b", "dislike"), event(2, "u", "c", "impression")])
    assert lessons.heads["weight"].tolist() == [-3.0]


def test_learning_may_be_off() -> None:
    assert not len(noted([event(0, "u", "a"), event(1, "u", "b")], learn="off").heads)


def some(n: int, first: int = 0, seed: int = 0) -> Lessons:
    rng = np.random.default_rng(seed)
    heads = np.zeros(n, LESSON)
    heads["item"], heads["weight"] = rng.integers(1, 50, n), 1
    heads["source"] = first + np.arange(n)
    heads["n_context"] = heads["n_before"] = rng.integers(1, 5, n)
    m = int(heads["n_context"].sum())
    return Lessons(heads, rng.integers(1, 50, m).astype(np.uint64), rng.integers(1, 255, m).astype(np.uint8))


FEATURES = 5


def fresh_learner(n_partitions: int = 1) -> Learner:
    return Learner(n_partitions, MatrixFactors(), fresh(FEATURES))


def judgements(n: int, first: int = 0) -> list[tuple[int, Lesson]]:
    rng = np.random.default_rng(n)
    return [(first + k, Lesson(rng.normal(size=n_parameters(FEATURES)).astype(np.float32), 3, 4, 2, 1, 0.5)) for k in range(n)]


def same(one: Lessons, other: Lessons) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_packing_keeps_everything() -> None:
    said = [Noted(2, 1_000, some(30, 5), judgements(4, 1_007)), Noted(0, 70, some(9, 0, 1)), Noted(3, 0, no_lessons(), judgements(2, 9))]
    (value,) = pack(said)
    found = unpack(value, 4)
    assert [(part.partition, part.base) for part in found] == [(2, 1_005), (0, 70), (3, 9)]
    for part, wanted in zip(found, said, strict=True):
        assert [source for source, _ in part.judged] == [source for source, _ in wanted.judged]
        for (_, one), (_, other) in zip(part.judged, wanted.judged, strict=True):
            assert one.gradient.tobytes() == other.gradient.tobytes() and one[1:] == other[1:]
    assert same(found[1].lessons, said[1].lessons)
    moved = found[0].lessons.heads.copy()
    moved["source"] += 5
    assert same(Lessons(moved, *found[0].lessons[1:]), said[0].lessons)


def test_large_ones_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.lessons.MAX_LESSONS", 20)
    values = list(pack([Noted(0, 0, some(15)), Noted(1, 0, some(47, seed=2))]))
    assert len(values) == 4
    learner = fresh_learner(2)
    taken = [part for k, value in enumerate(values) for part in learner.take(k, value)]
    assert sum(len(part.lessons.heads) for part in taken) == 62 and learner.highest.tolist() == [14, 46]


@settings(deadline=None)  # the first call compiles
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), bit=st.integers(0, 7))
def test_damaged_messages_are_refused_or_harmless(cut: int, flip: int, bit: int) -> None:
    (value,) = pack([Noted(0, 0, some(8))])
    for damaged in (value[:cut], value[: flip % len(value)] + bytes([value[flip % len(value)] ^ (1 << bit)]) + value[flip % len(value) + 1 :]):
        try:
            for part in unpack(damaged, 1):
                fresh_learner().learn([part])
        except (ForeignLessons, NewerLessons):
            pass


def test_nothing_is_learned_twice() -> None:
    """A worker dies after sending: the next one sends the same events again, cut otherwise."""
    whole = some(40)
    once, again = fresh_learner(), fresh_learner()
    (value,) = pack([Noted(0, 0, whole, judgements(2, 23))])
    once.learn(once.take(0, value))
    start = int(whole.heads["n_context"][:25].sum())
    first = Lessons(whole.heads[:25], whole.items[:start], whole.shares[:start])
    for offset, part in enumerate([first, whole]):
        (value,) = pack([Noted(0, 0, part, judgements(2, 23))])
        again.learn(again.take(offset, value))
        assert not again.take(offset, value), "and a message that comes twice teaches nothing"
    assert again.dump() == once.dump()


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=6))
def test_any_split_of_the_log_teaches_the_same(cuts: list[int]) -> None:
    whole = some(60)
    ends = np.concatenate([[0], np.cumsum(whole.heads["n_context"], dtype=np.int64)])
    one, many = fresh_learner(), fresh_learner()
    one.learn([Noted(0, 0, whole, judgements(3))])
    edges = [0, *sorted(set(cuts)), 60]
    for a, b in zip(edges, edges[1:], strict=False):
        many.learn([Noted(0, 0, Lessons(whole.heads[a:b], whole.items[ends[a] : ends[b]], whole.shares[ends[a] : ends[b]]))])
    many.learn([Noted(0, 0, no_lessons(), judgements(3))])
    assert one.dump() == many.dump()


def test_a_loaded_replica_goes_on_as_the_other() -> None:
    one, other = fresh_learner(2), fresh_learner(2)
    one.learn([Noted(0, 0, some(500), judgements(4))])
    other.load(one.dump(), 7, (3, 4))
    assert other.position == 7 and other.highest.tolist() == [3, 4]
    for learner in (one, other):
        learner.learn([Noted(0, 0, some(500, seed=3))])
    assert one.dump() == other.dump()
    for bad in (b"", b"x" * 40, one.dump()[:-1]):
        with pytest.raises(ValueError, match="factors"):
            fresh_learner().load(bad, 0, (0,))


def test_the_version_is_checked() -> None:
    (value,) = pack([Noted(0, 0, some(3))])
    with pytest.raises(NewerLessons, match="upgrade"):
        unpack(b"\x02\x00" + value[2:], 1)


@pytest.mark.parametrize("size", [3e38, np.inf, -np.inf, np.nan])
def test_a_gradient_that_no_basket_gives_does_not_end_learning(size: float) -> None:
    learner = fresh_learner()
    shape = learner.fusion["theta"].shape
    learner.learn([Noted(0, 0, no_lessons(), [(5, Lesson(np.full(shape, size, np.float32), 1, 1, 1, 1, 0.0))])])
    before = learner.fusion["theta"].copy()
    learner.learn([Noted(0, 0, no_lessons(), [(6, Lesson(np.ones(shape, np.float32), 1, 1, 1, 1, 0.0))])])
    assert np.isfinite(learner.fusion["square"]).all()
    assert (np.abs(learner.fusion["theta"] - before) > 1e-4).all(), "the next one still moves every parameter"


@pytest.mark.parametrize("said", [{"n_hits": 9}, {"n_hits": 2**32 - 1}, {"n_found": 30}])
def test_more_hits_than_baskets_are_foreign(said: dict[str, int]) -> None:
    """They would be a hit rate of billions, and drift for ever."""
    gradient = np.zeros(n_parameters(21), np.float32)
    lie = Lesson(gradient, 8, 20, 5, 3, 0.0)._replace(**said)
    (value,) = pack([Noted(0, 0, no_lessons(), [(5, lie)])])
    with pytest.raises(ForeignLessons, match="more hits"):
        unpack(value, 1)
