"""What is learned and judged on: no test is learned, histories are what came before, old days are sampled by user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumers.event_log import EventLog
from consumers.trainer.window import LEARNED, MOST_OF_A_USER, Choice, TooLittle, Window, make_window
from infra.settings import Settings
from models.hashing import stable_hash
from streams.events import EVENT_TYPES
from tests.consumers.event_log.records import DAY_MS, NOW_MS
from tests.consumers.trainer.worlds import events, fill

WEIGHTS = Settings().type_weights()


def window(folder: Path, *, days: int = 1000, exemplars: float = 0.0, seed: int = 1, neutral: float | None = None) -> Window:
    with EventLog(folder).snapshot() as log:
        return make_window(log, log.ends, log.days()[-1] if log.days() else "", Choice(window_days=days, exemplars=exemplars, type_weights=WEIGHTS,
                                                                                       neutral=neutral, seed=seed))


def learned(found: Window) -> list[list[tuple[int, int]]]:
    """(key, time) of each user's events."""
    parts = np.split(np.arange(len(found.items)), found.ends[:-1])
    return sorted([(int(found.keys[found.items[k]]), int(found.times_ms[k])) for k in part] for part in parts)


def test_what_is_learned_comes_before_what_is_judged_on(tmp_path: Path) -> None:
    sent = events(1, 150)
    fill(tmp_path, sent)
    found = window(tmp_path)
    cut = np.quantile([event["timestamp"] for event in sent], LEARNED, method="lower")
    by_user: dict[str, list[tuple[int, int]]] = {}
    for event in sent:
        by_user.setdefault(event["user_id"], []).append((stable_hash(event["item_id"]), event["timestamp"]))
    assert learned(found) == sorted(filter(None, ([one for one in own if one[1] <= cut] for own in by_user.values())))
    assert found.keys.dtype == np.uint64 and len(set(found.keys.tolist())) == len(found.keys)
    assert (found.types == EVENT_TYPES.index("view")).all()
    # each test: an event behind the cut, and all that its user did before it
    wanted = sorted((tuple(own[:k]), own[k][0]) for own in by_user.values() for k in range(1, len(own)) if own[k][1] > cut)
    starts = [0, *found.test_ends[:-1]]
    tests = sorted((tuple(zip(found.test_items[a:b].tolist(), found.test_times_ms[a:b].tolist(), strict=True)), int(target))
                   for a, b, target in zip(starts, found.test_ends, found.targets, strict=True))
    assert tests == wanted and len(tests) > 30
    assert np.bincount(found.testers).max() <= MOST_OF_A_USER


def test_the_newest_days_whole_and_some_users_of_before(tmp_path: Path) -> None:
    fill(tmp_path, events(2, 300, days=40))
    everything, narrow = window(tmp_path), window(tmp_path, days=10)
    first = narrow.times_ms.min()
    assert first >= (NOW_MS // DAY_MS - 9) * DAY_MS > everything.times_ms.min()
    mixed = window(tmp_path, days=10, exemplars=0.5)
    old = int((mixed.times_ms < first).sum())
    assert 0.3 * len(narrow.items) < old < 0.7 * len(narrow.items)
    assert [one for own in learned(mixed) for one in own if one[1] >= first] and len(narrow.targets) <= len(mixed.targets) < 1.3 * len(narrow.targets)
    of_old = [tuple(one for one in own if one[1] < first) for own in learned(everything)]
    assert {kept for own in learned(mixed) if (kept := tuple(one for one in own if one[1] < first))} <= set(of_old)  # whole users
    again = window(tmp_path, days=10, exemplars=0.5)
    assert all(np.array_equal(getattr(again, name), getattr(mixed, name)) for name in mixed.__dataclass_fields__)
    other = window(tmp_path, days=10, exemplars=0.5, seed=2)
    assert learned(other) != learned(mixed)


def test_only_what_speaks_for_an_item_counts(tmp_path: Path) -> None:
    sent = events(3, 200)
    kinds = ("view", "impression", "dislike", "rating", "rating", "remove", "purchase")
    for n, event in enumerate(sent):
        event["event_type"] = kinds[n % 7]
        if n % 7 in (3, 4):
            event["value"] = 2.0 if n % 7 == 3 else 4.0
    fill(tmp_path, sent)
    found = window(tmp_path, neutral=3.0)
    times = set(found.times_ms.tolist()) | set(found.test_times_ms.tolist())
    kept = {event["timestamp"] for n, event in enumerate(sent) if n % 7 in (0, 4, 6)}
    assert times <= kept
    assert {EVENT_TYPES[kind] for kind in found.types} == {"view", "rating", "purchase"}
    assert len(window(tmp_path).items) > len(found.items)  # values are not read: low ratings count


def test_a_window_is_saved_whole(tmp_path: Path) -> None:
    fill(tmp_path / "log", events(4, 80))
    found = window(tmp_path / "log")
    found.save(tmp_path / "window.npz")
    loaded = Window.load(tmp_path / "window.npz")
    assert all(np.array_equal(getattr(loaded, name), getattr(found, name)) for name in found.__dataclass_fields__)
    assert loaded.facts["n_events"] == len(found.items)


def test_a_window_is_as_of_its_offsets(tmp_path: Path) -> None:
    first, later = events(5, 120), events(6, 50, first_user=60)
    fill(tmp_path, first)
    before = window(tmp_path)
    with EventLog(tmp_path).snapshot() as log:
        ends, last = log.ends, log.days()[-1]
    fill(tmp_path, later)
    with EventLog(tmp_path).snapshot() as log:
        choice = Choice(window_days=1000, exemplars=0.0, type_weights=WEIGHTS, neutral=None, seed=1)
        after = make_window(log, ends, last, choice)
    assert all(np.array_equal(getattr(after, name), getattr(before, name)) for name in before.__dataclass_fields__)
    assert len(window(tmp_path).items) > len(before.items)


@pytest.mark.parametrize(("users", "said"), [(0, "the event log is empty"), (1, "of 1 users"), (15, "needs 20 users"), (24, "from")])
def test_too_little_is_said(tmp_path: Path, users: int, said: str) -> None:
    fill(tmp_path, events(7, users))
    with pytest.raises(TooLittle, match=said):
        window(tmp_path)
