"""A list is JSON of the published form, whatever ids hold; it names only the channels that occur in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lists import ListWriter

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/list.json").read_text())
CHANNELS = ["repeat", "covisitation", "popular_1h", "popular"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def written(scores: list[float], why: list[int], *, user: str | None = "u", ids: list[str] | None = None,
            as_of: tuple[int, int, int] | None = (1, 2, 3)) -> dict[str, Any]:
    """The list as a reader finds it, checked by the schema."""
    items = [msgspec.json.encode(text) for text in (ids if ids is not None else [f"i{k}" for k in range(len(scores))])]
    body = ListWriter(CHANNELS, "m").write(user, items, np.array(scores, np.float32), np.array(why, np.uint8), 1_763_778_821_000, as_of)
    found = json.loads(body)
    VALIDATOR.validate(found)
    assert json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode() == body, "no byte too many"
    return dict(found)


@pytest.mark.parametrize(("scores", "wanted"), [
    ([8.0, 2.0], [1, 0.5]),
    ([1.0, 0.81, 0.5, 0.25], [1, 0.9, 0.71, 0.5]),
    ([1.0, 1.0], [1, 1]),
    ([1.0, 0.0001, 0.000001], [1, 0.01, 0]),
    ([1.0, 0.0], [1, 0]),
    ([1e-30, 2.5e-31], [1, 0.5]),
    ([0.0, 0.0], [0, 0]),  # shown, but not for a reason: popular items of a catalogue without an event
    ([1.0, -0.5], [1, 0]),
    ([], []),
])
def test_scores(scores: list[float], wanted: list[float]) -> None:
    assert written(scores, [0] * len(scores))["scores"] == wanted


def test_only_channels_that_occur() -> None:
    found = written([4.0, 3.0, 2.0], [3, 1, 3])
    assert found["channels"] == ["covisitation", "popular"] and found["why"] == [1, 0, 1]
    assert written([], [])["channels"] == []
    assert written([1.0], [2])["why"] == [0]


def test_what_a_list_says_of_itself() -> None:
    assert written([1.0], [0], as_of=(3, 2**40, 5))["as_of"] == {"partition": 3, "offset": 2**40, "time": 5}
    found = written([1.0], [3], user=None, as_of=None)
    assert found["user"] is None and "as_of" not in found and found["v"] == 1 and found["model"] == "m"


# what `check_id` accepts
ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(ids, st.lists(st.tuples(ids, st.floats(0, 1e6, width=32), st.integers(0, 3)), max_size=30, unique_by=lambda one: one[0]))
def test_any_list(user: str, entries: list[tuple[str, float, int]]) -> None:
    entries.sort(key=lambda one: -one[1])
    found = written([score for _, score, _ in entries], [why for _, _, why in entries], user=user, ids=[text for text, _, _ in entries])
    assert found["user"] == user and found["items"] == [text for text, _, _ in entries]
    assert [found["channels"][w] for w in found["why"]] == [CHANNELS[why] for _, _, why in entries]
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert sorted(found["channels"], key=CHANNELS.index) == found["channels"] and set(found["why"]) == set(range(len(found["channels"])))
    best = entries[0][1] if entries else 0
    for score, (_, plain, _) in zip(found["scores"], entries, strict=True):
        assert not best or score == pytest.approx((plain / best) ** 0.5, abs=0.0051)
