"""The demo's figures and words: what it counts, how it judges lists, what it says; without servers."""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from prometheus_client import generate_latest
from rich.console import Console

from consumers.demo.board import LISTS, Board
from consumers.demo.gauges import Flow, Sample, flow, parse
from consumers.demo.live import NOBODY, LiveWeek
from consumers.demo.purchases import Basket, _described
from consumers.demo.quality import Hits, PlainPopularity, bootstrap
from consumers.demo.scale import demo_settings
from consumers.demo.screen import Screen, line
from consumers.demo.stage import DemoError, alone
from consumers.demo.words import bought, in_words
from consumers.deliveries import Receipt
from consumers.lists import AsOf, RecommendationList
from infra.metrics import Metrics
from infra.quantiles import quantile_ms, share_within
from infra.settings import Settings

DAY_MS = 86_400_000


def test_hits_are_counted_by_basket_and_by_item() -> None:
    hits = Hits(("own", "popular"))
    assert hits.add("u1", ["a", "b"], [[*"abcdefghij"], [*"klmnopqrst"]]) == [True, False]
    assert hits.add("u2", ["x", "k"], [[*"abcdefghij", "x"], [*"klmnopqrst"]]) == [False, True]  # x is the eleventh
    assert len(hits) == 2 and hits.share("own") == hits.share("popular") == 0.5
    assert hits.found("own") == 2 / 4 and hits.found("popular") == 1 / 4
    assert hits.difference("own", "popular").value == 0.0


def test_intervals_take_users_as_units() -> None:
    """Ten baskets of one user say no more than the user does: the interval of many users is narrower than of few."""
    values = np.tile([1.0, 0.0], 200)
    many = bootstrap([f"u{i}" for i in range(400)], values, 0)
    few = bootstrap([f"u{i % 8}" for i in range(400)], values, 0)  # u0 always hits, u1 never
    assert many.value == few.value == 0.5
    assert many.low < 0.5 < many.high
    assert few.high - few.low > 3 * (many.high - many.low)
    assert bootstrap([], np.empty(0), 0).value == 0.0


def test_plain_popularity_is_exact_at_every_moment() -> None:
    rng = np.random.default_rng(3)
    names = [f"i{n}" for n in range(30)]
    codes, times = rng.integers(0, 30, 500), np.sort(rng.integers(0, 60 * DAY_MS, 500))
    half_life_ms = 20 * DAY_MS
    plain = PlainPopularity(names, codes[:400], times[:400], half_life_ms)
    for k in range(400, 500):
        plain.add([names[codes[k]]], int(times[k]))
    counts: dict[str, float] = defaultdict(float)
    for code, time_ms in zip(codes, times, strict=True):
        counts[names[code]] += 2.0 ** (-(int(times[-1]) - int(time_ms)) / half_life_ms)
    assert plain.top() == sorted(counts, key=counts.__getitem__, reverse=True)[:10]
    plain.add(["new"] * 100, int(times[-1]))
    assert plain.top(1) == ["new"]
    assert PlainPopularity([], np.empty(0, np.int64), np.empty(0, np.int64), half_life_ms).top() == []


def test_pages_of_workers_become_rates_and_quantiles() -> None:
    metrics = Metrics()
    before = _sample(metrics, 10.0)
    metrics.events_absorbed.inc(300)
    metrics.lists_published.inc(30)
    for p, n in (("0", 4), ("1", 5)):
        metrics.lag.labels(p).set(n)
    for _ in range(100):
        metrics.freshness.observe(0.0055)
    now = _sample(metrics, 12.0)
    assert (now.absorbed, now.lists, now.lag) == (300, 30, 9)
    found = flow(before, now)
    assert (found.events_per_s, found.lists_per_s) == (150.0, 15.0)
    assert found.p50_ms == pytest.approx(5.5) and found.p99_ms == pytest.approx(5.99)
    assert flow(now, now) == Flow()


def test_quantiles_of_empty_and_endless_buckets() -> None:
    assert quantile_ms([], 0.5) is None
    assert quantile_ms([(0.01, 0), (float("inf"), 0)], 0.5) is None
    assert quantile_ms([(0.01, 1), (10.0, 1), (float("inf"), 9)], 0.99) == 10_000.0  # at least that
    assert share_within([], 0.1) is None and share_within([(0.2, 3), (float("inf"), 4)], 0.1) == 0.0


def _sample(metrics: Metrics, at_s: float) -> Sample:
    values = parse(generate_latest(metrics.registry).decode())
    buckets = sorted((float(name.removeprefix("le:")), round(n)) for name, n in values.items() if name.startswith("le:"))
    return Sample(at_s, round(values["streamrec_events_absorbed_total"]), lists=round(values["streamrec_lists_published_total"]),
                  lag=round(values.get("streamrec_lag", 0)), freshness=tuple(buckets))


def test_reasons_are_sentences() -> None:
    known = bought([("milk", 0), ("bread", DAY_MS), ("milk", 2 * DAY_MS)])
    assert known.recent == ["milk", "bread"]
    found = RecommendationList(items=("milk", "jam", "tea", "salt", "rum"), channels=("repeat", "covisitation", "popular_7d", "new_one"),
                               why=(0, 1, 2, 3, 1))
    titles = {"milk": ("Milk, 1 l", "Dairy"), "bread": ("Bread", "Bakery"), "jam": ("Jam", "Spreads")}
    lines = in_words(found, known, titles, lambda item: ["jam"] if item == "bread" else [])
    assert [one.reason for one in lines] == [
        "they bought it twice, last on 3 January", "often bought after Bread, which they just had",
        "much bought this week by all households; new to them", "proposed by new_one", "often bought after what they had last"]
    assert (lines[0].title, lines[2].title) == ("Milk, 1 l", "tea")


def test_beyond_the_first_ten_only_what_is_new_is_shown() -> None:
    found = RecommendationList(items=tuple(f"i{n}" for n in range(40)), channels=("repeat",), why=(0,) * 40)
    known = bought([(f"i{n}", n) for n in range(20)])
    assert [one.rank for one in in_words(found, known, {}, lambda item: [])] == [*range(1, 11), 21, 22, 23]


class _Kafka:
    """Takes events, one partition; and a Redis in which their lists appear after a while."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s, self.log, self.known = delay_s, [], {}  # type: ignore[var-annotated]

    async def send(self, **event: object) -> asyncio.Future[Receipt]:
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.log.append(("sent", event["user_id"]))
        done.set_result(Receipt(str(event["event_id"]), 0, len(self.log)))
        asyncio.get_running_loop().call_later(self.delay_s, self.known.__setitem__, event["user_id"], len(self.log))
        return done

    async def get(self, user: str) -> RecommendationList:
        self.log.append(("read", user))
        return RecommendationList(items=("hit",) if user != NOBODY else ("miss",))

    async def get_many(self, users: list[str]) -> dict[str, RecommendationList]:
        return {user: RecommendationList(as_of=AsOf(0, self.known[user], 0) if user in self.known else None) for user in users}


def test_lists_are_read_before_their_basket_is_sent_and_waited_for_after() -> None:
    kafka, board = _Kafka(0.03), Board()
    plain = PlainPopularity(["plain"], np.zeros(1, np.int64), np.zeros(1, np.int64), DAY_MS)
    week = LiveWeek(board, kafka, kafka, plain, speed_up=1000.0)  # type: ignore[arg-type]
    baskets = [Basket(f"u{k % 2}", f"b{k}", k * 10_000, ["hit", f"i{k}"], [f"b{k}-1", f"b{k}-2"]) for k in range(6)]
    asyncio.run(week.play(baskets))
    per_basket = [("read", "u0"), ("read", NOBODY), ("sent", "u0"), ("sent", "u0")]
    assert kafka.log[:4] == per_basket and len(kafka.log) == 6 * 4
    assert [board.hits.share(name) for name in LISTS] == [1.0, 0.0, 5 / 6]  # from the second basket on plain counts know it
    assert len(board.waited_ms) == 6 and min(board.waited_ms) >= 29 and board.n_sent == 12


def test_a_failing_watch_ends_the_live_week() -> None:
    class Broken(_Kafka):
        async def get_many(self, users: list[str]) -> dict[str, RecommendationList]:
            raise DemoError("gone")

    kafka = Broken(0.0)
    plain = PlainPopularity(["plain"], np.zeros(1, np.int64), np.zeros(1, np.int64), DAY_MS)
    week = LiveWeek(Board(), kafka, kafka, plain, speed_up=1000.0)  # type: ignore[arg-type]
    with pytest.raises(DemoError, match="gone"):
        asyncio.run(asyncio.wait_for(week.play([Basket("u", "b", 0, ["i"], ["e"])]), 5.0))


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    board = Board()
    screen = Screen(board, Console(file=out))
    board.enter("backlog", "of 10")
    with screen:
        screen.show()
        screen.show()  # the same phase, a moment later: no second line
        board.enter("live")
        board.hits.add("u", ["a"], [["a"], ["b"], ["b"]])
        screen.show()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and "backlog" in lines[0] and "hit@10 100.0%" in lines[1]
    assert "\x1b" not in out.getvalue()
    assert line(board).count("\n") == 0


def test_the_demo_has_a_prefix_of_its_own_and_leaves_what_the_user_set() -> None:
    given = Settings(prefix="team.", web_port=8000, seen_types="purchase")
    found = demo_settings(given)
    assert found.prefix == "team.demo." and found.web_port == 0  # two workers cannot share a port
    assert found.seen_types == "purchase"


def test_two_demos_at_once_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with alone(tmp_path / "demo"):
        with pytest.raises(DemoError, match="another demo"):
            with alone(tmp_path / "demo"):
                pass
    with alone(tmp_path / "demo"):
        pass


def test_titles_are_made_for_people() -> None:
    products = pd.DataFrame({
        "product_id": [1, 2, 3], "department": ["GROCERY", "FUEL", "DELI"], "brand": ["Private", "National", "National"],
        "product_category": ["EGGS", None, "CHEESE"], "product_type": ["EGGS - LARGE", None, "SFT CHEESE (SLICED"],
        "package_size": ["1 DZ", None, "5 OZ"]})
    found = _described(products)
    assert found["title"].tolist() == ["Eggs - large, 1 dz (store brand)", "Fuel", "Sft cheese, 5 oz"]
    assert found["category"].tolist() == ["Eggs", "Fuel", "Cheese"] and found["item_id"].tolist() == ["1", "2", "3"]
