"""A list as it lies in Redis: one JSON string, items best first (docs/contract.md).

Built from parts that are already bytes - quoted ids, two-digit scores - because a general encoder spends its time on
Python floats (34 µs for a list of 100), and by a kernel, because so would we (23 µs; now 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numba as nb
import numpy as np

VERSION = 1
MOST_CHANNELS = 100
#: Scores of 0 to 100 hundredths, and numbers of channels, as text with a comma behind it, filled up with zero bytes.
_SCORES = np.array([b"%d," % (s // 100) if s % 100 == 0 else (b"0.%02d" % s).rstrip(b"0") + b"," for s in range(101)], "S8").view(np.uint8).reshape(-1, 8)
_NUMBERS = np.array([b"%d," % k for k in range(MOST_CHANNELS)], "S8").view(np.uint8).reshape(-1, 8)


@nb.njit(cache=True, nogil=True)
def _append(text: np.ndarray, n: int, token: np.ndarray) -> int:
    for byte in token:
        if byte == 0:
            break
        text[n] = byte
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _numbers(scores: np.ndarray, why: np.ndarray, score_texts: np.ndarray, numbers: np.ndarray, place: np.ndarray, text: np.ndarray) -> tuple[int, int]:
    """Scores, then why, each number with a comma behind it, into `text`; returns where each ends. `place` (MOST_CHANNELS,), all -1,
    is filled with the places of the channels that occur."""
    for channel in why:
        place[channel] = 0
    used = 0
    for channel in range(len(place)):
        if place[channel] == 0:
            place[channel] = used
            used += 1
    one = scores.dtype.type(1)
    top = scores[0] if len(scores) and scores[0] > 0 else one
    n = 0
    for score in scores:
        n = _append(text, n, score_texts[int(np.rint(scores.dtype.type(100) * np.sqrt(max(score, one - one) / top)))])
    end = n
    for channel in why:
        n = _append(text, n, numbers[place[channel]])
    return end, n


class ListWriter:
    """Writes lists for one fusion: `channels` are the names that its `why` indexes; `model` names what made them.

    A list names only the channels that occur in it.
    """

    def __init__(self, channels: Sequence[str], model: str) -> None:
        self._channels = [msgspec.json.encode(name) for name in channels]
        self._model = b'],"model":' + msgspec.json.encode(model)

    def write(
        self,
        user: str | None,
        items: Sequence[bytes],
        scores: np.ndarray,
        why: np.ndarray,
        generated_at_ms: int,
        as_of: tuple[int, int, int] | None,
    ) -> bytes:
        """One list. items: ids as JSON strings; scores (n,) float32 best first; why (n,) uint8: places in `channels`; `as_of`:
        partition, offset and event time of the last event it reflects.

        A score is written as the square root of its share of the best one's: two digits then tell apart what differs by
        1 in 10,000, in 90 bytes less than a plain share would need.
        """
        place = np.full(MOST_CHANNELS, -1, np.int8)
        text = np.empty(8 * len(items) + 8, np.uint8)
        end_scores, end = _numbers(scores, why, _SCORES, _NUMBERS, place, text)
        said = text[:end].tobytes()
        parts = [
            b'{"v":1,"user":',
            b"null" if user is None else msgspec.json.encode(user),
            b',"items":[',
            b",".join(items),
            b'],"scores":[',
            said[: max(0, end_scores - 1)],
            b'],"channels":[',
            b",".join([channel for channel, at in zip(self._channels, place.tolist(), strict=False) if at >= 0]),
            b'],"why":[',
            said[end_scores : max(end_scores, end - 1)],
            self._model,
            b',"generated_at":%d' % generated_at_ms,
        ]
        if as_of is not None:
            parts.append(b',"as_of":{"partition":%d,"offset":%d,"time":%d}' % as_of)
        parts.append(b"}")
        return b"".join(parts)
