"""Who was erased, and which of his events are therefore passed over: keyed hashes from the compacted topic `erasures`.

An erase event lies in `events`, in its user's partition, among his events: what lies before it is not absorbed any more, what comes
behind it is a new user's. Whoever absorbs it says so in `erasures`: the user's hash, and the place of the event. All that read `events`
read that topic whole first, so they never absorb what is erased further on; the order of `events` alone leads to the same end.

The hash is BLAKE2b under the key of the settings: without it nobody can try ids against the topic.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from infra.settings import StreamrecError

VERSION = 1
HASH_BYTES = 16
USER = b"user/"
#: Clocks of brokers may differ by so much. It only matters for a topic `events` that was made anew: there old places mean nothing, which
#: the times tell.
SLACK_MS = 3_600_000
#: Of a message that is no event so much is looked through for users: as much as its dead letter would hold.
LOOKED_AT_BYTES = 64 * 1024
_NAMED = re.compile(rb'"user_id"\s*:\s*("(?:[^"\\]|\\.){1,800}")')


class ForeignErasures(StreamrecError):
    """Erasures were written under another key, or by a newer version."""


class Erased(NamedTuple):
    """An erase event: whose, and where it lies in his partition."""

    user: str
    offset: int
    appended_ms: int


class Erasure(msgspec.Struct, frozen=True):
    """Value of a message of `erasures`; docs/contract.md. key: which key the hash was made with."""

    key: str
    partition: int
    offset: int
    appended_at: int
    v: int = VERSION

    def takes(self, offset: int, appended_ms: int) -> bool:
        """Whether it erases an event at this place of its partition."""
        return offset < self.offset and appended_ms <= self.appended_at + SLACK_MS

    def takes_original(self, appended_ms: int) -> bool:
        """The same of an event that came in another partition at this time: places there say nothing of before and after."""
        return appended_ms <= self.appended_at


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Erasure).decode
_text = msgspec.json.Decoder(str).decode


class Erasures:
    """Everybody who was erased. `position`: up to where the topic has been heard."""

    def __init__(self, key: str = "") -> None:
        secret = key.encode()
        self._hash = hashlib.blake2b(
            digest_size=HASH_BYTES, person=b"streamrec user", key=secret if len(secret) <= 64 else hashlib.blake2b(secret).digest()
        )
        self.key = self._hash_of("\x00which key is this").hex()[:16]  # no user has such an id
        self.users: dict[bytes, Erasure] = {}
        self.position = 0
        self._below: dict[int, int] = {}
        self._heard: dict[bytes, Erasure] = {}

    @property
    def digest(self) -> str:
        """The same for the same erasures, another for others."""
        found = sorted((name, one.offset, one.appended_at) for name, one in list(self.users.items()))
        return hashlib.blake2b(repr(found).encode(), digest_size=16).hexdigest() if found else ""

    def _hash_of(self, text: str) -> bytes:
        hasher = self._hash.copy()
        hasher.update(text.encode())
        return hasher.digest()

    def below(self, partition: int) -> int:
        """At this offset of a partition and beyond nobody's events are erased: there nobody has to be looked for."""
        return self._below.get(partition, 0)

    def _put(self, name: bytes, found: Erasure) -> None:
        before = self.users.get(name)
        if before is None or not _is_later(before, found):
            self.users[name] = found
            self._below[found.partition] = max(found.offset, self._below.get(found.partition, 0))

    def of(self, user: str) -> Erasure | None:
        """The last erasure of a user."""
        hasher = self._hash.copy()
        hasher.update(user.encode())
        return self.users.get(hasher.digest())

    def skips(self, user: str, offset: int, appended_ms: int) -> bool:
        """Whether an event at this place of its user's own partition is erased."""
        return (found := self.of(user)) is not None and found.takes(offset, appended_ms)

    def add(self, partition: int, erased: Erased) -> None:
        """An erase event has been met in the log."""
        self._put(self._hash_of(erased.user), Erasure(self.key, partition, erased.offset, erased.appended_ms))

    def to_tell(self, user: str) -> tuple[bytes, bytes] | None:
        """Key and value of the message that tells of it; None where the topic knows."""
        name = self._hash_of(user)
        found, heard = self.users[name], self._heard.get(name)
        if heard is not None and (heard == found or _is_later(heard, found)):
            return None
        return USER + name.hex().encode(), _encode(found)

    def topic_key(self, user: str) -> bytes:
        """Key under which the topic knows a user."""
        return USER + self._hash_of(user).hex().encode()

    def hear(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Take one message of the topic; raises `ForeignErasures`. What is no message of ours is passed over."""
        self.position = offset + 1
        if key is None or not key.startswith(USER):
            return
        try:
            name = bytes.fromhex(key[len(USER) :].decode())
            found = None if not value else _decode(value)
        except (ValueError, msgspec.DecodeError):
            return
        if found is None:
            self.users.pop(name, None)
            self._heard.pop(name, None)
            return
        if found.v > VERSION:
            raise ForeignErasures(f"an erasure of version {found.v} lies in the topic erasures, this version of streamrec reads {VERSION}: upgrade it")
        if found.key != self.key:
            raise ForeignErasures(
                f"users were erased under another key (its mark is {found.key}, that of ours {self.key}), so we cannot tell whose events to pass"
                " over; set STREAMREC_ERASURE_KEY to the key that was used"
            )
        self._heard[name] = found
        self._put(name, found)


def _is_later(one: Erasure, other: Erasure) -> bool:
    """By time first: in a topic that was made anew places begin again."""
    return (one.appended_at, one.offset) > (other.appended_at, other.offset)


def users_named(value: bytes | None) -> Iterator[str]:
    """Users that bytes which are no event seem to speak of."""
    for found in _NAMED.finditer((value or b"")[:LOOKED_AT_BYTES]):
        try:
            yield _text(found[1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
