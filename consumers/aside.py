"""What a reader keeps beside the lists, and how it turns a reply into an answer; shared by the sync and async reader.

Two small things are needed by many calls and change rarely: the hidden items and the popular list. Both are kept for
a second. Their renewal costs no call a round trip: the call that finds the hidden items old asks for them in the same
round trip as for its list; the popular list is asked for only by a call whose user has none. No Redis client here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import msgspec
import redis.exceptions

from consumers.lists import ReaderError, RecommendationList, decode_hidden, decode_list
from infra.settings import Settings
from streams.keys import Keys

KEEP_S = 1.0  # design section 5: the popular list is cached for a second, hidden items vanish within one
#: One call renews the hidden items while others go on with the old ones, but none with older ones than this: after a
#: quiet hour the first calls come together, and each must ask for itself rather than trust what is an hour old.
TRUST_S = 2.0


class RedisUnreachable(ReaderError):
    """Redis did not answer, or refused us."""


class Staleness(msgspec.Struct, frozen=True):
    """Whether lists follow events, as the workers last said (every 2 s)."""

    workers: int  #: workers that are alive; with none, no list moves
    ready: int  #: of these, the ones that serve
    lag: int  #: events in Kafka that no worker has absorbed
    oldest_dirty_ms: int  #: how long the user waits whose list has been out of date longest; 0: all are fresh


class _Heartbeat(msgspec.Struct):
    lag: dict[str, int] = {}
    oldest_dirty_ms: float | None = 0
    ready: bool = False


_decode_heartbeat = msgspec.json.Decoder(_Heartbeat).decode


class Aside:
    """Key names, the kept hidden items and popular list, and the rules for both. Clock injected: seconds, monotonic."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        keys = Keys(settings.prefix)
        self.list_prefix, self.similar_prefix, self.workers_prefix = keys.list_of(""), keys.similar(""), keys.worker("")
        self.hidden_key, self.popular_key = keys.hidden, keys.popular
        self.hidden: frozenset[str] = frozenset()
        self._address = _address(settings.redis_url)
        self._clock = clock
        self._hidden_raw: bytes | None = None
        self._hidden_at = self._asked_at = self._popular_at = float("-inf")
        self._popular = RecommendationList(fallback=True)

    def hidden_due(self) -> bool:
        """Whether this call must bring the hidden items along."""
        now = self._clock()
        age = now - self._hidden_at
        if age < KEEP_S:
            return False
        if age < TRUST_S and now - self._asked_at < KEEP_S:
            return False  # another call is on its way with them
        self._asked_at = now
        return True

    def keep_hidden(self, value: bytes | None) -> None:
        """Take over what `hidden:all` holds; decoded only when it changed, it may name many items."""
        if value != self._hidden_raw:
            self.hidden = decode_hidden(value, self.hidden_key)
            self._hidden_raw = value
        self._hidden_at = self._clock()

    def popular_due(self) -> bool:
        """Whether the popular list must be fetched before `fallback` may be used."""
        return self._clock() - self._popular_at >= KEEP_S

    def keep_popular(self, value: bytes | None) -> None:
        """Take over what `popular:all` holds; nothing there: an empty list, which is a young system's truth."""
        popular = RecommendationList() if value is None else decode_list(value, self.popular_key)
        self._popular = msgspec.structs.replace(popular, fallback=True)
        self._popular_at = self._clock()

    def fallback(self, user: str) -> RecommendationList:
        """The popular list as the answer for a user without one."""
        return msgspec.structs.replace(self._popular.without(self.hidden), user=user)

    def answers(self, users: Sequence[str], values: Sequence[bytes | None]) -> dict[str, RecommendationList]:
        """Lists by user; `popular_due()` must be false where a value is None."""
        return {
            user: self.fallback(user) if value is None else decode_list(value, self.list_prefix + user).without(self.hidden)
            for user, value in zip(users, values, strict=True)
        }

    def similar(self, item: str, value: bytes | None) -> RecommendationList:
        """An item's neighbours; none known: empty."""
        return RecommendationList() if value is None else decode_list(value, self.similar_prefix + item).without(self.hidden)

    def staleness(self, values: Iterable[bytes | None]) -> Staleness:
        """Sum up the workers' heartbeats; one that expired between the two looks counts as gone."""
        try:
            beats = [_decode_heartbeat(value) for value in values if value is not None]
        except msgspec.DecodeError as error:
            raise ReaderError(f"a heartbeat under {self.workers_prefix}* is not of docs/contract.md's form: {error}") from None
        return Staleness(
            workers=len(beats),
            ready=sum(beat.ready for beat in beats),
            lag=sum(sum(beat.lag.values()) for beat in beats),
            oldest_dirty_ms=int(max((beat.oldest_dirty_ms or 0 for beat in beats), default=0)),
        )

    def failure(self, error: Exception) -> ReaderError:
        """The error of this package for one of the client library's; names the address, never a password."""
        if isinstance(error, UnicodeEncodeError):
            return ReaderError(f"the id {error.object!r} is no valid text (a lone surrogate); expected text that UTF-8 can carry")
        if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
            return RedisUnreachable(f"Redis at {self._address} refused the login ({error}); set STREAMREC_REDIS_USER and _PASSWORD")
        if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | OSError):
            return RedisUnreachable(
                f"Redis at {self._address} did not answer ({error or type(error).__name__}); "
                "expected a running server: see `streamrec status`, or set STREAMREC_REDIS_URL"
            )
        return ReaderError(f"Redis at {self._address} answered with an error: {error}")


#: What the two readers turn into one of ours.
CLIENT_ERRORS = (redis.exceptions.RedisError, OSError, TimeoutError, UnicodeEncodeError)


def _address(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path
