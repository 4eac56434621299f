"""One household's list in words: what each thing is, and why it is there.

In: a list as the reader gives it, the household's purchases, titles. Out: sentences. The reasons are the list's own
(`why` and `channels`); the purchases only give them numbers and dates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from consumers.lists import RecommendationList

N_TOP = 10
N_NEW = 3
N_SOURCES = 8  # last items in which co-visitation looks for what goes with them
POPULAR = {"popular_1h": "within the last hour", "popular_1d": "today", "popular_7d": "this week", "popular": "of late"}


class Line(NamedTuple):
    """One item in words."""

    rank: int
    item: str
    title: str
    category: str
    reason: str


class Bought(NamedTuple):
    """What one household bought: how often each item, when last (ms), and its last items, newest first."""

    times: Counter[str]
    last_ms: dict[str, int]
    recent: list[str]


def bought(purchases: Iterable[tuple[str, int]]) -> Bought:
    """From (item, event time in ms), oldest first."""
    times: Counter[str] = Counter()
    last_ms: dict[str, int] = {}
    for item, time_ms in purchases:
        times[item] += 1
        last_ms.pop(item, None)  # so that the order is that of the last purchase
        last_ms[item] = time_ms
    return Bought(times, last_ms, list(reversed(last_ms)))


def chosen(found: RecommendationList, known: Bought) -> list[int]:
    """Places in the list that are shown: the first ten, then the first few that the household never bought."""
    top = list(range(min(N_TOP, len(found.items))))
    new = [i for i in range(len(top), len(found.items)) if not known.times[found.items[i]]]
    return top + new[:N_NEW]


def in_words(found: RecommendationList, known: Bought, titles: dict[str, tuple[str, str]],
             neighbours: Callable[[str], Sequence[str]]) -> list[Line]:
    """The chosen items with their reasons; neighbours(item) are the items that go with one, as Redis holds them."""
    lines = []
    for place in chosen(found, known):
        item = found.items[place]
        title, category = titles.get(item, (item, ""))
        lines.append(Line(place + 1, item, title, category, reason(found.reason(place), item, known, titles, neighbours)))
    return lines


def reason(channel: str, item: str, known: Bought, titles: dict[str, tuple[str, str]],
           neighbours: Callable[[str], Sequence[str]]) -> str:
    """Why an item is there, as a sentence."""
    had = known.times[item]
    if channel == "repeat":
        return f"they bought it {times(had)}, last on {day(known.last_ms[item])}" if had else "they bought it before"
    if channel == "covisitation":
        source = next((one for one in known.recent[:N_SOURCES] if item in neighbours(one)), None)
        name = titles[source][0] if source in titles else None
        return f"often bought after {name}, which they just had" if name else "often bought after what they had last"
    if channel == "two_hop":
        return "goes with things that go with what they had last"
    if channel == "mf":
        return "those who buy as they do buy it too"
    if channel == "transformer":
        return "comes next, says the model that was trained on all households' histories"
    if channel in POPULAR:
        text = f"much bought {POPULAR[channel]} by all households"
        return f"{text}; they had it {times(had)}" if had else f"{text}; new to them"
    return f"proposed by {channel}"


def times(n: int) -> str:
    """How often, in words."""
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def day(time_ms: int) -> str:
    """A date as people write it."""
    when = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{when.day} {when:%B}"
