"""Expiry: only the last word on an item counts, whatever was said before."""

from __future__ import annotations

import msgspec
import pytest

from infra.settings import Settings
from streams.catalogue import Catalogue, ItemAttributes, decode_item
from streams.items import ItemTable

NOW_MS = 1_763_778_821_000
SOON_MS = NOW_MS + 1_000


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(ItemTable(Settings(partitions=2)))


def say(catalogue: Catalogue, now_ms: int = NOW_MS, **attributes: object) -> None:
    item_id, decoded = decode_item(b"i", msgspec.json.encode(attributes))
    catalogue.apply(item_id, decoded, now_ms, now_ms)


def shown(catalogue: Catalogue) -> bool:
    return bool(catalogue._items.visible[catalogue._items.slot_of("i")])


@pytest.mark.parametrize("past", ["1980-01-01", "1980-01-01T00:00:00+00:00", -1, -(10**15), "0001-01-01"])
def test_an_expiry_set_to_long_ago(catalogue: Catalogue, past: int | str) -> None:
    say(catalogue, expires_at=SOON_MS)
    assert shown(catalogue)
    say(catalogue, expires_at=past)
    assert not shown(catalogue)
    catalogue.expire(SOON_MS)  # the first word comes due, and must neither raise nor hide a second time
    assert not shown(catalogue) and catalogue.n_hidden == 1 and catalogue.hidden_since["i"] == NOW_MS


def test_the_last_word_counts(catalogue: Catalogue) -> None:
    say(catalogue, expires_at=SOON_MS)
    say(catalogue, expires_at=SOON_MS + 5_000)
    catalogue.expire(SOON_MS)
    assert shown(catalogue)
    say(catalogue, expires_at=SOON_MS)  # and back: the entry of the first word has gone
    catalogue.expire(SOON_MS)
    assert not shown(catalogue)
    say(catalogue, now_ms=SOON_MS)
    assert shown(catalogue)
    catalogue.expire(SOON_MS + 10_000)
    assert shown(catalogue)  # never again, said the last word
    catalogue.apply("i", None, SOON_MS, SOON_MS)
    assert not shown(catalogue) and catalogue.n_hidden == 2
    catalogue.expire(2**62)
    assert catalogue.n_hidden == 2 and not catalogue._expires_ms


def test_hidden_then_shown_with_the_same_expiry(catalogue: Catalogue) -> None:
    say(catalogue, expires_at=SOON_MS)
    say(catalogue, expires_at=SOON_MS, hidden=True)
    assert not shown(catalogue)
    say(catalogue, expires_at=SOON_MS)
    assert shown(catalogue)
    catalogue.expire(SOON_MS)
    assert not shown(catalogue)


def test_repeated_expiries_take_no_memory(catalogue: Catalogue) -> None:
    for title in range(1_000):  # a catalogue that is sent whole every night
        say(catalogue, expires_at=SOON_MS, title=str(title))
    assert len(catalogue._expiries) == 1
    catalogue.expire(SOON_MS)
    assert not catalogue._expiries and not shown(catalogue)


def test_an_attribute_keeps_what_it_was_given(catalogue: Catalogue) -> None:
    say(catalogue, title="t", expires_at=SOON_MS)
    assert catalogue.attributes["i"] == ItemAttributes(title="t", expires_at=SOON_MS)
