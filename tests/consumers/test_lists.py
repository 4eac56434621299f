"""A list as an application sees it: tolerant of what is missing or new, clear about what it cannot read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.lists import AsOf, CorruptList, RecommendationList, UnknownVersion, decode_hidden, decode_list

FULL: dict[str, Any] = {
    "v": 1, "user": "u42", "items": ["i7", "i3", "i9"], "scores": [0.93, 0.71, 0.5], "channels": ["covisitation", "repeat"],
    "why": [0, 1, 0], "model": "blend", "generated_at": 1763778821123,
    "as_of": {"partition": 3, "offset": 12345, "time": 1763778821100},
}


def encode(**changes: Any) -> bytes:
    return json.dumps({key: value for key, value in {**FULL, **changes}.items() if value is not ...}).encode()


def test_all_of_it() -> None:
    lst = decode_list(encode())
    assert list(lst) == ["i7", "i3", "i9"] and len(lst) == 3 and lst[1] == "i3"
    assert [lst.reason(i) for i in range(3)] == ["covisitation", "repeat", "covisitation"]
    assert lst.as_of == AsOf(3, 12345, 1763778821100)
    assert lst.age_ms(now_ms=1763778822123) == 1000
    assert not lst.fallback


def test_popular_and_similar_lists_belong_to_nobody() -> None:
    lst = decode_list(encode(user=None, as_of=...))
    assert lst.user is None and lst.as_of is None


@pytest.mark.parametrize("field", [field for field in FULL if field != "items"])
def test_a_missing_field_costs_nothing_but_itself(field: str) -> None:
    lst = decode_list(encode(**{field: ...}))
    assert lst.items == ("i7", "i3", "i9")
    assert isinstance(lst.reason(0), str) and lst.without(frozenset({"i3"})).items == ("i7", "i9")


def test_unknown_fields_are_passed_over() -> None:
    assert decode_list(encode(explanations={"i7": [1, {"deep": []}]}, as_of={**FULL["as_of"], "epoch": 4})) == decode_list(encode())


def test_a_newer_version_is_refused_even_where_it_no_longer_decodes() -> None:
    for newer in (encode(v=2), encode(v=2, items=[{"id": "i7"}])):
        with pytest.raises(UnknownVersion, match=r"rec:u42 has version 2, this client reads up to 1; update"):
            decode_list(newer, "rec:u42")
    with pytest.raises(UnknownVersion):
        decode_hidden(b'{"v":9,"items":{}}')


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff\xfe", b"{", b'{"items":7}', b'{"items":["a",null]}', b'{"v":"one"}'])
def test_what_is_no_list_is_called_so(value: bytes) -> None:
    with pytest.raises(CorruptList, match="rec:u1"):
        decode_list(value, "rec:u1")


def test_unknown_age() -> None:
    assert RecommendationList().age_ms() is None


@pytest.mark.parametrize("i", [3, -4])
def test_a_reason_needs_an_item(i: int) -> None:
    with pytest.raises(IndexError):
        decode_list(encode()).reason(i)


def test_reason_counts_from_the_end_like_items() -> None:
    lst = decode_list(encode(why=[0, 1, 1]))
    assert (lst[-3], lst.reason(-3)) == ("i7", "covisitation")


@given(st.lists(st.text(max_size=3), unique=True, max_size=20), st.sets(st.text(max_size=3), max_size=20))
def test_without_drops_items_with_their_scores_and_reasons(items: list[str], hidden: set[str]) -> None:
    lst = RecommendationList(items=tuple(items), scores=tuple(map(float, range(len(items)))), channels=tuple(items),
                             why=tuple(range(len(items))))
    rest = lst.without(frozenset(hidden))
    assert list(rest) == [item for item in items if item not in hidden]
    assert [items[int(score)] for score in rest.scores] == list(rest)
    assert [rest.reason(i) for i in range(len(rest))] == list(rest)
    assert hidden.isdisjoint(rest)
