"""Which household's list is shown at the end, and the showing of it: one that bought in the last week, and much before."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from consumers.demo.purchases import Basket, Purchases
from consumers.demo.summary import show_list
from consumers.demo.words import N_SOURCES, N_TOP, bought, chosen, in_words
from consumers.lists import RecommendationList
from consumers.reader import Reader
from infra.settings import Settings

N_TRIED = 300
ENOUGH = 200  # purchases that make a household worth telling of


def show_one(console: Console, settings: Settings, purchases: Purchases, baskets: Sequence[Basket]) -> str:
    """Show the list of the household, among the last that bought something, whose list has most to tell; returns its name."""
    with Reader(settings) as reader:
        counts = purchases.counts()
        users = list(dict.fromkeys(basket.user for basket in reversed(baskets)))[:N_TRIED]
        lists = reader.get_many(users)
        # of equals the first, which is the household that bought last
        user = max(users, key=lambda one: (min(ENOUGH, counts.get(one, 0)), _variety(lists[one])))
        history = purchases.history(user)
        history += [(item, basket.time_ms) for basket in baskets if basket.user == user for item in basket.items]
        known, found = bought(history), lists[user]
        named = [found.items[place] for place in chosen(found, known)] + known.recent[:N_SOURCES]
        neighbours = {item: reader.similar(item).items for item in known.recent[:N_SOURCES]}
        lines = in_words(found, known, purchases.titles(named), lambda item: neighbours.get(item, ()))
        show_list(console, user, len(history), lines)
    return user


def _variety(found: RecommendationList) -> int:
    """How many different reasons the first ten have."""
    return len({found.reason(i) for i in range(min(N_TOP, len(found.items)))})
