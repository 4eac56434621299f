"""A user's list as an application gets it: the type, and the way from the bytes in Redis to it.

In: the JSON of `rec:<user_id>`, `popular:all`, `similar:<item_id>` and `hidden:all` (docs/contract.md).
Out: `RecommendationList`, `frozenset` of hidden items. No Redis here, so all of it is tested without one.

    StreamrecError
    └── ReaderError
        ├── UnknownVersion   what lies in Redis was written by a newer streamrec
        ├── CorruptList      what lies in Redis is not what the contract says
        └── RedisUnreachable (consumers.reader) Redis did not answer
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from infra.settings import StreamrecError

LIST_VERSION = 1


class ReaderError(StreamrecError):
    """A list could not be read."""


class UnknownVersion(ReaderError):
    """What lies in Redis carries a version newer than this client knows."""


class CorruptList(ReaderError):
    """What lies in Redis is not of the contract's form."""


class AsOf(msgspec.Struct, frozen=True, gc=False):
    """The last event that the list knows: its partition and offset in `events`, and its event time in epoch ms."""

    partition: int
    offset: int
    time: int


class RecommendationList(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Items for one user, best first; `scores[i]` and `reason(i)` belong to `items[i]`.

    Fields that a writer left out have the defaults below; fields that this client does not know are passed over.
    It is a sequence of item ids: `len(lst)`, `lst[0]`, `for item in lst`.

    >>> lst = decode_list(b'{"v":1,"user":"u42","items":["i7"],"scores":[0.9],"channels":["repeat"],"why":[0]}')
    >>> lst.items, lst.reason(0)
    (('i7',), 'repeat')
    """

    v: int = LIST_VERSION
    user: str | None = None  #: whose list it is; None for similar items
    items: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    channels: tuple[str, ...] = ()
    why: tuple[int, ...] = ()  #: index into `channels`, one an item
    model: str = ""
    generated_at: int = 0  #: epoch ms; 0 where unknown
    as_of: AsOf | None = None  #: None where the list follows from no single user's events
    fallback: bool = False  #: the user has no list of his own, these are the popular items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    def __getitem__(self, i: int) -> str:
        return self.items[i]

    def reason(self, i: int) -> str:
        """The channel that put item `i` into the list; empty where the writer did not say."""
        if i < 0:
            i += len(self.items)
        if not 0 <= i < len(self.items):
            raise IndexError(f"item {i} of a list of {len(self.items)}")
        if i < len(self.why) and 0 <= self.why[i] < len(self.channels):
            return self.channels[self.why[i]]
        return ""

    def age_ms(self, now_ms: int | None = None) -> int | None:
        """Milliseconds since the list was computed; None where the list does not say.

        Old is not stale: the list of a user who did nothing since is old and right. `Reader.staleness()` tells
        whether the system lags.
        """
        if not self.generated_at:
            return None
        return (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - self.generated_at

    def without(self, hidden: frozenset[str]) -> RecommendationList:
        """The same list without these items; itself where none of them is in it."""
        if not hidden or hidden.isdisjoint(self.items):
            return self
        kept = [i for i, item in enumerate(self.items) if item not in hidden]
        return msgspec.structs.replace(
            self,
            items=tuple(self.items[i] for i in kept),
            scores=tuple(self.scores[i] for i in kept if i < len(self.scores)),
            why=tuple(self.why[i] for i in kept if i < len(self.why)),
        )


class _Hidden(msgspec.Struct, frozen=True):
    v: int = LIST_VERSION
    items: frozenset[str] = frozenset()


class _Version(msgspec.Struct):
    v: int = LIST_VERSION


_decode_list = msgspec.json.Decoder(RecommendationList).decode
_decode_hidden = msgspec.json.Decoder(_Hidden).decode
_decode_version = msgspec.json.Decoder(_Version).decode


def decode_list(value: bytes, key: str = "the list") -> RecommendationList:
    """Decode one list; `key` only serves the message of UnknownVersion and CorruptList."""
    try:
        decoded = _decode_list(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(value, key, error) from None
    if decoded.v > LIST_VERSION:
        raise _newer(key, decoded.v)
    return decoded


def decode_hidden(value: bytes | None, key: str = "hidden:all") -> frozenset[str]:
    """Decode the hidden items; none where the key is absent."""
    if value is None:
        return frozenset()
    try:
        hidden = _decode_hidden(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(value, key, error) from None
    if hidden.v > LIST_VERSION:
        raise _newer(key, hidden.v)
    return hidden.items


def _refusal(value: bytes, key: str, error: Exception) -> ReaderError:
    """A newer version may have changed types, so ask for the version before complaining of them."""
    try:
        version = _decode_version(value).v
    except (msgspec.DecodeError, UnicodeDecodeError):
        version = LIST_VERSION
    if version > LIST_VERSION:
        return _newer(key, version)
    return CorruptList(f"{key} holds {value[:60]!r}, expected the list of docs/contract.md ({error}); who else writes this key?")


def _newer(key: str, version: int) -> UnknownVersion:
    return UnknownVersion(f"{key} has version {version}, this client reads up to {LIST_VERSION}; update streamrec here")
