"""How lists are compared, on lists whose answers can be counted by hand."""

from __future__ import annotations

import pytest

from consumers.lists import AsOf, RecommendationList
from consumers.replay.diff import Side, _Compared, correlation


def body(items: str, offset: int = 0) -> RecommendationList:
    return RecommendationList(items=tuple(items), as_of=AsOf(0, offset, 0))


@pytest.mark.parametrize(("one", "other", "rho"), [
    ("abc", "abc", 1.0), ("abc", "cba", -1.0), ("abxc", "yabc", 1.0), ("abcd", "abdc", 0.8), ("a", "a", None), ("ab", "cd", None)])
def test_correlation(one: str, other: str, rho: float | None) -> None:
    found = correlation(one, other)
    assert found is None if rho is None else found == pytest.approx(rho)


def test_what_is_counted() -> None:
    found = _Compared()
    found.add("same", (body("abcdefghijk"), body("abcdefghijx")))  # they differ behind the tenth
    found.add("order", (body("ab"), body("ba")))
    found.add("other", (body("ab", 3), body("cd", 4)))
    found.add("left", (body("ab"), None))
    found.add("came", (None, body("a")))
    side = Side("x", 0, 0, 0.0, 0, 0, None)
    report = found.report(side, side)
    assert (report.compared, report.differing, report.newer) == (3, 2, 1)
    assert found.n_users == [4, 4]
    assert report.overlap == pytest.approx((1 + 1 + 0) / 3)
    assert report.correlation == pytest.approx((1 - 1) / 2)
    assert report.users[0].id == "other" and report.users[0].change == 0
    assert {moved.id: moved.change for moved in report.items} == {"b": -2, "a": -1, "c": 1, "d": 1}
